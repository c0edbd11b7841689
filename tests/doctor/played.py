"""Failures that are played end to end through the doctor's real probes: name, expected verdict, the machine. See machine.py.

The name's first word is the rule. docs/doctor-coverage.md is made from this list.
"""
import os
import sys

from machine import (LIBRARY_32, NVIDIA, ADDRESS, BUS, CONTAINER, DRIVER, GPU, HOST, MOUNTS, NODES, NVRM, PCI, VERSION, Machine, function,
                     kernel_log, library, module, module_file, package)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'inspect'))
from made import fatbin, ptx, sass  # noqa: E402

WORKS = {**HOST, **GPU, **DRIVER}
NO_UVM = {name: text for name, text in NODES.items() if 'uvm' not in name}
NO_DRIVER = dict(drivers={}, nodes={}, library=None, nvml=None)
KO = '/lib/modules/6.1.0-%s-amd64/updates/dkms/nvidia.ko'
VM = {'/proc/cpuinfo': 'flags : fpu hypervisor\n', '/sys/class/dmi/id/sys_vendor': 'QEMU\n'}
SECOND = '0000:3c:00.0'
SXM = function(ADDRESS, '0x10de', '0x2330', '0x030200')
SXM2 = function(SECOND, '0x10de', '0x2330', '0x030200')
SWITCH = function('0000:05:00.0', '0x10de', '0x22a3', '0x068000')
B200 = function(ADDRESS, '0x10de', '0x2901', '0x030200')
BRIDGE = function('0000:00:05.0', '0x10de', '0x0448', '0x068000')
OTHER = NVRM % ('Open Kernel Module', '550.54.14')
LIB = '/usr/lib/%s-linux-gnu/' % os.uname().machine
SECURE = {'/sys/firmware/efi/efivars/SecureBoot-8be4df61': bytes([6, 0, 0, 0, 1])}
CDI = """cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
containerEdits:
  mounts:
  - hostPath: /usr/lib/libcuda.so.%s
    containerPath: /usr/lib/libcuda.so.%s
"""
POD = {'/var/run/secrets/kubernetes.io/x': ''}
KUBELET = '/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint'
DOCKER = {'/usr/bin/dockerd': ''}
HOOK = {'/usr/bin/nvidia-container-runtime-hook': ''}
LXC = {'/run/systemd/container': 'lxc\n'}


def all_nodes(mode, answer):
    return {name: text.replace('0666:ok', '%s:%s' % (mode, answer)) for name, text in NODES.items()}


def nodes(**changes):
    return {**NODES, **{name.replace('_', '-'): text for name, text in changes.items()}}


def torch(*entries):
    """An environment whose torch for CUDA 12.8 holds these kernels."""
    return package('torch', '2.7.0', {'torch/version.py': "cuda = '12.8'\n", 'torch/lib/libtorch_cuda.so': library('libtorch_cuda.so', fatbin=fatbin(*entries)),
                                       'torch/lib/libc10.so': library('libc10.so', has=('_ZN3c105ErrorC1Ev',))})


def vision(symbol):
    """A package whose library calls a function of torch, one of another library of its own and one of the C library."""
    return package('torchvision', '0.22.0', {'torchvision/_C.so': library('_C.so', '', ('libc10.so', ''), calls=(symbol, '_ZN2at3ownEv', 'malloc')),
                                             'torchvision/image.so': library('image.so', '', ('libc10.so', ''), has=('_ZN2at3ownEv',))})


PYTHON = ['--python', '/opt/venv']
PLAYED = [
    ('OK a GPU that works', Machine(WORKS)),
    ('OK in a container', Machine({**WORKS, **CONTAINER})),
    ('F001 no GPU', Machine(HOST, **NO_DRIVER)),
    ('F001 no GPU, but a node that the driver made', Machine(HOST, drivers={}, nodes={'nvidiactl': '195:255:0666:ENXIO'}, script='init=100')),
    ('F003 all ones', Machine({**WORKS, **function(ADDRESS, '0x10de', '0x2684', '0x030000', b'\xff' * 4)}, script='init=100')),
    ('F004 bound to vfio-pci', Machine({**HOST, **GPU}, drivers={ADDRESS: 'vfio-pci'}, nodes={}, library=None, nvml=None)),
    ('F005 no memory region', Machine({**WORKS, PCI + ADDRESS + '/resource': '0x0 0x0 0x0\n' * 6}, script='init=100')),
    ('F006 registers are taken', Machine({**WORKS, **kernel_log("NVRM: request_mem_region failed for 16M @ 0xf0000000.")},
        script='init=100')),
    ('F007 no interrupt', Machine({**WORKS, **kernel_log("NVRM: Can't find an IRQ for your NVIDIA card!")}, script='init=100')),
    ('F008 asleep', Machine({**WORKS, PCI + ADDRESS + '/power_state': 'D3cold\n'}, script='init=999')),
    ('F009 no power cable', Machine({**WORKS, **kernel_log('NVRM: Xid (PCI:0000:3b:00): 54, GPU auxiliary power is not connected')},
        script='init=100')),
    ('F080 off the bus', Machine({**WORKS, **kernel_log("NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', "
                                                         'name=<unknown>, GPU has fallen off the bus.')}, script='init=999')),
    ('F031 firmware does not start', Machine({**WORKS, **kernel_log('NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x62:0x65:1860)')},
        script='init=100')),
    ('F032 firmware stopped', Machine({**WORKS, **kernel_log('NVRM: Xid (PCI:0000:3b:00): 119, pid=5, name=x, Timeout after 45s')},
        script='init=999')),
    ('F087 a halt', Machine({**WORKS, **kernel_log('NVRM: Xid (0000:3b:00): 62, 0000(0000) 00000000 00000000')}, script='context=46')),
    ('OK and F088, an application error', Machine({**WORKS, **kernel_log('NVRM: Xid (PCI:0000:3b:00): 31, pid=9, name=x, MMU Fault')})),
    ('F020 nouveau', Machine({**HOST, **GPU}, drivers={ADDRESS: 'nouveau'}, nodes={}, library=None, nvml=None)),
    ('F021 no module for this kernel', Machine({**HOST, **GPU, KO % '9': ''}, **NO_DRIVER)),
    ('F022 a closed module on Blackwell', Machine({**WORKS, **function(ADDRESS, '0x10de', '0x2b85', '0x030000'),
        '/proc/driver/nvidia/version': NVRM % ('Kernel Module', VERSION)}, script='init=100')),
    ('F023 Secure Boot', Machine({**HOST, **GPU, KO % '13': '', **SECURE}, **NO_DRIVER)),
    ('F0A1 not loaded', Machine({**HOST, **GPU, KO % '13': ''}, **NO_DRIVER)),
    ('F025 library and module differ', Machine({**WORKS, '/proc/driver/nvidia/version': NVRM % ('Open Kernel Module', '550.54.14')},
        script='init=803')),
    ('F026 no nvidia_uvm', Machine({**WORKS, **{path: None for path in module('nvidia_uvm', uvm_disable_hmm='N')}},
        nodes=NO_UVM, script='init=999')),
    ('F027 HMM', Machine(WORKS, script='init=3')),
    ('F028 after a suspend', Machine({**WORKS, '/sys/power/suspend_stats/success': '3\n'}, script='init=999')),
    ('F033 opening a node hangs', Machine(WORKS, nodes=nodes(nvidiactl='195:255:0666:hang'), script='init=999')),
    ('F036 no uvm node in a container', Machine({**WORKS, **CONTAINER}, nodes=NO_UVM, script='init=999')),
    ('F037 an old major', Machine(WORKS, nodes=nodes(nvidia_uvm='508:0:0666:ENXIO'), script='init=999')),
    ('F038 not my group', Machine(WORKS, nodes=all_nodes('0660', 'EACCES'), script='init=100')),
    ('F042 SELinux', Machine({**WORKS, **CONTAINER, '/sys/fs/selinux/enforce': '1'}, nodes=all_nodes('0666', 'EACCES'),
        script='init=100')),
    ('F039 device rights are lost', Machine({**WORKS, **CONTAINER}, nodes=all_nodes('0666', 'EPERM'), script='init=999')),
    ('F044 a job without a GPU', Machine(WORKS, nodes=nodes(nvidia0='195:0:0666:EPERM'), script='init=100', env={'SLURM_JOB_ID': '7'})),
    ('F070 no libcuda', Machine(WORKS, library=None)),
    ('F071 compat', Machine(WORKS, folder='compat', script='init=804')),
    ('F072 a stub', Machine(WORKS, library='libcuda.so.1', script='init=34')),
    ('F073 a stray library', Machine({**WORKS, **CONTAINER, '/proc/driver/nvidia/version': OTHER, '/proc/self/mountinfo': MOUNTS +
        '26 22 8:1 /x /driver ro - ext4 /dev/sda1 ro\n'}, script='init=803')),
    ('F073 a stray library beside the right one', Machine({**WORKS, '/proc/driver/nvidia/version': OTHER, LIB + 'libcuda.so.550.54.14': NVIDIA},
        script='init=803')),
    ('F074 baked into the image', Machine({**WORKS, **CONTAINER, '/proc/driver/nvidia/version': OTHER}, script='init=803')),
    ('F076 ldconfig was not run', Machine({**WORKS, LIB + 'libcuda.so.' + VERSION: NVIDIA}, library=None)),
    ('F076 not on the path', Machine({**WORKS, '/usr/local/nvidia/lib64/libcuda.so.1': NVIDIA}, library=None)),
    ('F078 a runtime that is too new', Machine({**WORKS, '/opt/cuda/libcudart.so.13': library('libcudart.so.13', 'libcudart.so.13')},
        env={'LD_LIBRARY_PATH': '/opt/cuda'})),
    ('F078 torch for CUDA 13', Machine({**WORKS, **package('torch', '2.9.0', {'torch/version.py': "cuda = '13.0'\n"})}, options=['--python', '/opt/venv'])),
    ('OK and TOOLKIT, one that is too new', Machine({**WORKS, LIB + 'libcudart.so.13': library('libcudart.so.13', 'libcudart.so.13')})),
    ('OK two toolkits', Machine({**WORKS, LIB + 'libcudart.so.13': library('libcudart.so.13', 'libcudart.so.13'),
        LIB + 'libcudart.so.12': library('libcudart.so.12', 'libcudart.so.12')})),
    ('F079 a call that needs a newer driver', Machine(WORKS, script='alloc=36')),
    ('F07A an old nvJitLink', Machine({**WORKS, **package('torch', '2.7.0', {'torch/version.py': "cuda = '12.4'\n"}),
        '/opt/cuda/libnvJitLink.so.12.1.105': library('libnvJitLink.so.12')},
        options=['--python', '/opt/venv'], env={'LD_LIBRARY_PATH': '/opt/none:/opt/cuda'})),
    ('F07B a libcudart without versions', Machine({**WORKS, '/opt/shim/libcudart.so.12': library('libcudart.so.12'),
        LIB + 'libcudart.so.12': library('libcudart.so.12', 'libcudart.so.12')}, env={'LD_LIBRARY_PATH': '/opt/shim'})),
    ('F07C a newer C library is wanted', Machine({**WORKS, '/driver/lib/libcuda.so.1': library('libcuda.so.1', '', ('libc.so.6', 'GLIBC_9.99'))},
        library=None)),
    ('OK and F07D, an older libstdc++', Machine({**WORKS, '/opt/conda/libstdc++.so.6.0.28': library('libstdc++.so.6'),
        LIB + 'libstdc++.so.6.0.33': library('libstdc++.so.6')}, env={'LD_LIBRARY_PATH': '/opt/conda'})),
    ('F07E 32-bit', Machine({**WORKS, '/usr/lib/i386-linux-gnu/libcuda.so.' + VERSION: LIBRARY_32}, library=None)),
    ('F07F no compiler', Machine(WORKS, script='module=221', siblings=False)),
    ('NOJIT it is switched off', Machine(WORKS, script='module=223', env={'CUDA_DISABLE_PTX_JIT': '1'})),
    ('F12F no siblings', Machine(WORKS, script='init=999', siblings=False)),
    ('F105 an image for CUDA 13', Machine({**WORKS, **CONTAINER}, env={'NVIDIA_REQUIRE_CUDA': 'cuda>=13.0'})),
    ('OK and F127, TensorFlow without cuDNN', Machine({**WORKS, **package('tensorflow', '2.19.0', {'tensorflow/x.so': '',
        'tensorflow/python/platform/build_info.py': 'build_info = {"is_cuda_build": True}\n'})}, options=['--python', '/opt/venv'])),
    ('CRASH the driver crashes', Machine(WORKS, script='crash=1')),
    ('CRASH the driver ends the process', Machine(WORKS, script='exit=1')),
    ('F064 masked', Machine(WORKS, script='masked=1', env={'CUDA_VISIBLE_DEVICES': '-1'})),
    ('F08E no memory information', Machine(WORKS, library='libcuda.so.1', script='mem_info=3')),
    ('F09B cuInit hangs', Machine(WORKS, script='hang=init')),
    ('F09B a launch hangs', Machine(WORKS, script='hang=launch')),
    ('F124 a shim hangs', Machine(WORKS, library='libcuda.so.1', script='hang=init')),
    ('F092 no known cause', Machine(WORKS, script='init=999')),
    ('STEP a launch fails', Machine(WORKS, script='launch=719')),
    ('STEP wrong results of a shim', Machine(WORKS, library='libcuda.so.1', script='wrong=1')),
    ('F09A wrong results', Machine(WORKS, script='wrong=1')),
    ('F09A a bit of memory flips', Machine(WORKS, script='flip=1', options=['--deep'])),
    ('OK in a deep look', Machine(WORKS, options=['--deep'])),
    ('F051 one SXM GPU in a VM', Machine({**WORKS, **SXM, **VM}, script='init=802', nvml='fabric=2,cc=0')),
    ('F053 two in a VM', Machine({**WORKS, **SXM, **SXM2, **VM}, drivers={ADDRESS: 'nvidia', SECOND: 'nvidia'}, script='init=802',
        nvml='fabric=2,mask=1024,cc=0')),
    ('F056 confidential and not ready', Machine({**WORKS, **SXM, **VM}, script='init=802', nvml='fabric=3,cc=1,ready=0')),
    ('F041 NVML 17', Machine(WORKS, script='init=100', nvml='init=17')),
    ('OK and F05A, an unhealthy fabric', Machine({**WORKS, **SXM}, nvml='fabric=3,mask=1280')),
    ('OK and F0A0, no NVML', Machine(WORKS, nvml=None)),
    ('F060 MIG without an instance', Machine(WORKS, script='init=100', nvml='mig=1,migs=0')),
    ('F061 MIG without a compute instance', Machine(WORKS, script='init=100', nvml='mig=1,migs=0,instances=2')),
    ('F060 who may not list the instances', Machine(WORKS, script='init=100', nvml='mig=1,migs=0,instances=-1')),
    ('F08D full', Machine(WORKS, script='context=2', nvml='used=81900,processes=2')),
    ('OK and F062, MIG waits', Machine(WORKS, nvml='mig=0,pending=1')),
    ('F069 exclusive', Machine(WORKS, script='context=46', nvml='mode=3,processes=1')),
    ('F06A held memory', Machine(WORKS, script='context=2', nvml='used=70000')),
    ('OK and F06E, no license', Machine(WORKS, nvml='virtualization=2,license=4')),
    ('F081 a reset is asked for', Machine(WORKS, script='init=999', nvml='recovery=1')),
    ('F082 a reboot is asked for', Machine(WORKS, script='init=999', nvml='recovery=2')),
    ('OK and F084, ECC', Machine(WORKS, nvml='errors=2')),
    ('OK and F085, rows', Machine(WORKS, nvml='remap=1')),
    ('OK and F010, fewer lanes', Machine({**WORKS, PCI + ADDRESS + '/current_link_width': '8\n', PCI + ADDRESS + '/max_link_width': '16\n'})),
    ('F110 a full disk', Machine(WORKS, env={'FAKE_DISKS': '/srv=2000000:1500000:1000:900,/=30000:12:1000:900'})),
    ('F110 no inodes', Machine(WORKS, env={'FAKE_DISKS': '/srv=2000000:1500000:1000:900,/=30000:9000:1000:0'})),
    ('OK and F112, a small /dev/shm', Machine({**WORKS, **CONTAINER}, env={'FAKE_DISKS': '/dev/shm=64:64:0:0,/=30000:9000:1000:900'})),
    ('F050 no Fabric Manager', Machine({**WORKS, **SXM, **SWITCH}, script='init=802', nvml='fabric=1,cc=0')),
    ('F055 Fabric Manager of another version', Machine({**WORKS, **SXM, **SWITCH, '/proc/77/comm': 'nv-fabricmanage\n',
        '/var/log/fabricmanager.log': 'fabric manager NVIDIA GPU driver interface version 570.1 don\'t match with driver version 570.195.03\n'},
        script='init=802', nvml='fabric=1,cc=0')),
    ('OK and F05E, Fabric Manager without switches', Machine({**WORKS, '/usr/bin/nv-fabricmanager': '',
        '/var/log/fabricmanager.log': 'request to query NVSwitch device information failed: NV_WARN_NOTHING_TO_DO\n'})),
    ('F054 a switch is missing', Machine({**WORKS, **SXM, **SWITCH, '/proc/77/comm': 'nv-fabricmanage\n', '/var/log/fabricmanager.log':
        'detected number of NVSwitches don\'t match with any supported system topology, aborting\n'}, script='init=802', nvml='fabric=1,cc=0')),
    ('F05F a fatal SXid', Machine({**WORKS, **SXM, **SWITCH, '/proc/77/comm': 'nv-fabricmanage\n',
        **kernel_log('nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 24007, Fatal, Link 51 sourcetrack timeout error (First)')},
        script='init=802', nvml='fabric=1,cc=0')),
    ('F052 no management of the switches', Machine({**WORKS, **B200}, script='init=802', nvml='fabric=2,cc=0')),
    ('F131 their port is down', Machine({**WORKS, **B200, **module('ib_umad'), **module('mlx5_ib'), '/sys/class/infiniband/mlx5_0/device/vpd': 'x SW_MNG x',
        '/sys/class/infiniband/mlx5_0/ports/1/state': '1: DOWN\n'}, script='init=802', nvml='fabric=2,cc=0')),
    ('F06B no MPS daemon', Machine(WORKS, script='init=805')),
    ('OK and F114, noexec', Machine({**WORKS, '/proc/self/mountinfo': MOUNTS + '26 22 0:21 / /tmp rw,noexec - tmpfs tmpfs rw\n'})),
    ('F120 torch for the CPU', Machine({**WORKS, **package('torch', '2.7.0+cpu', {'torch/version.py': "__all__ = ['cuda']\ncuda: Optional[str] = None\n",
        'torch/lib/libtorch.so': ''})}, options=['--python', '/opt/venv'])),
    ('F120 jaxlib without its plugin', Machine({**WORKS, **package('jaxlib', '0.6.0', {'jaxlib/x.so': ''})}, options=['--python', '/opt/venv'])),
    ('F122 no kernels in a package', Machine({**WORKS, **package('robocache', '1.0.0', {'robocache/__init__.py':
        'try:\n    from robocache import _cuda_ops  # built by setup.py\nexcept ImportError:\n    _cuda_ops = None\n'})},
        options=['--python', '/opt/venv'])),
    ('OK and an environment that is complete', Machine({**WORKS,
        **package('torch', '2.7.0+cu128', {'torch/version.py': "cuda: Optional[str] = '12.8'\n", 'torch/_C.cpython-311-x86_64-linux-gnu.so': '',
                                           'torch/__init__.py': 'from torch import _C\n'}),
        **package('jaxlib', '0.6.0', {'jaxlib/x.so': ''}), **package('jax-cuda12-plugin', '0.6.0', {'jax_cuda12_plugin/x.so': ''}),
        **package('pure', '1', {'pure/__init__.py': 'from . import _kernel\nfrom .sub import _cuda\nfrom other import _cuda\n', 'pure/_kernel.py': ''})},
        options=['--python', '/opt/venv'])),
    ('F011 a virtual function', Machine({**WORKS, **kernel_log('NVRM: Ignoring probe for VF 0000:3b:00.4')}, script='init=100')),
    ('F013 a legacy GPU', Machine({**WORKS, **kernel_log('NVRM: ignoring the legacy GPU 0000:3b:00.0')}, script='init=100')),
    ('F024 a module for another kernel', Machine({**HOST, **GPU, KO % '13': '', **kernel_log("nvidia: version magic 'x' should be 'y'")},
        **NO_DRIVER)),
    ('F030 no firmware', Machine({**WORKS, **kernel_log('NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x61:0x56:1697)')}, script='init=100')),
    ('OK and F035, an excluded GPU', Machine({**WORKS,
        '/proc/driver/nvidia/gpus/0000:3b:00.0/information': 'Model: \t x\nGPU Excluded:\t Yes\n'})),
    ('F12A Pascal and the open module', Machine({**WORKS, **function(ADDRESS, '0x10de', '0x1b80', '0x030000')}, script='init=100')),
    ('OK and kernels for the GPU', Machine({**WORKS, **torch(sass(80), sass(90))}, options=PYTHON)),
    ('OK and PTX for the GPU', Machine({**WORKS, **torch(sass(80), ptx(80))}, options=PYTHON)),
    ('F097 no kernels for the GPU', Machine({**WORKS, **torch(sass(80), sass(90))}, script='cc=120', options=PYTHON)),
    ('DROPPED none for an old one', Machine({**WORKS, **torch(sass(75), ptx(80))}, script='cc=61', options=PYTHON)),
    ('F098 PTX that is too new', Machine({**WORKS, **torch(sass(80), ptx(90, (8, 8)))}, options=PYTHON)),
    ('F123 built for another torch', Machine({**WORKS, **torch(sass(90)), **vision('_ZN3c105ErrorC2ESs')}, options=PYTHON)),
    ('OK and built for this torch', Machine({**WORKS, **torch(sass(90)), **vision('_ZN3c105ErrorC1Ev')}, options=PYTHON)),
    ('OK and F126, an old driver for Ollama', Machine({**WORKS, '/usr/local/lib/ollama/cuda_v12/libggml-cuda.so': '',
        '/proc/driver/nvidia/version': NVRM % ('Open Kernel Module', '535.1.1'), **module('nvidia', '535.1.1')}, library='libcuda.so.535.1.1')),
    ('OK and F065, a list with a wrong name', Machine(WORKS, script='count=2', env={'CUDA_VISIBLE_DEVICES': '0,1,7'})),
    ('OK and F068, two models', Machine(WORKS, script='count=2,numbered=1')),
    ('OK and F128, an injected library', Machine(WORKS, env={'CUDA_INJECTION64_PATH': '/opt/none.so'})),
    ('F12B a bridge', Machine({**WORKS, **BRIDGE}, script='init=802')),
    ('F100 no GPU in this container', Machine({**HOST, **GPU, **CONTAINER}, **NO_DRIVER)),
    ('F102 NVIDIA_VISIBLE_DEVICES', Machine({**HOST, **GPU, **CONTAINER}, env={'NVIDIA_VISIBLE_DEVICES': 'void'}, **NO_DRIVER)),
    ('F10A a pod without a GPU', Machine({**HOST, **GPU, '/var/run/secrets/kubernetes.io/x': ''}, **NO_DRIVER)),
    ('F101 WSL', Machine({**HOST, **BUS, '/proc/sys/kernel/osrelease': '5.15.90.1-microsoft-standard-WSL2\n',
        '/usr/lib/wsl/lib/libcuda.so.1': ''},
        drivers={}, nodes={'dxg': '10:60:0666:ok'}, script='init=100')),
    ('F10E Kata', Machine({**WORKS, '/proc/cmdline': 'quiet systemd.unit=kata-containers.target\n', PCI + ADDRESS + '/resource': '0x0 0x0 0x0\n' * 6},
        script='init=100')),
    ('F130 GPU-PV without dxgkrnl', Machine({**HOST, **function('0000:00:00.0', '0x1414', '0x008e', '0x030200')}, drivers={}, nodes={},
        script='init=100', nvml='init=17')),
    ('F047 /dev without devices', Machine({**WORKS, **CONTAINER, '/proc/self/mountinfo': MOUNTS + '26 22 0:21 / /dev rw,nosuid,nodev - tmpfs tmpfs rw\n'},
        nodes=all_nodes('0666', 'EACCES'), script='init=100')),
    ('F046 a MIG device without its node', Machine({**WORKS, '/proc/devices': 'Character devices:\n195 nvidia-frontend\n236 nvidia-caps\n510 nvidia-uvm\n'},
        nodes={**NODES, 'nvidia-caps/nvidia-cap12': '236:12:0444:EPERM'}, script='init=100',
        env={'SLURM_JOB_ID': '7', 'SLURM_JOB_GPUS': '0', 'CUDA_VISIBLE_DEVICES': 'MIG-6d1b1c5e-0000-0000-0000-000000000000'})),
    ('F108 LXC', Machine({**WORKS, **LXC}, nodes=all_nodes('0666', 'EPERM'), script='init=999')),
    ('F12E a pod', Machine({**WORKS, **POD}, nodes=all_nodes('0666', 'EPERM'), script='init=999')),
    ('F12D a service', Machine({**WORKS, '/proc/self/cgroup': '0::/system.slice/x.service\n'}, nodes=all_nodes('0666', 'EPERM'), script='init=100')),
    ('F043 flatpak', Machine({**WORKS, '/.flatpak-info': ''}, library=None)),
    ('F043 snap', Machine({**WORKS, '/proc/self/attr/current': 'snap.tool.app (enforce)\n'}, library=None)),
    ('F09D gVisor', Machine({**WORKS, **CONTAINER, '/proc/version': 'Linux version 4.4.0 gVisor\n'}, script='init=100')),
    ('F10F Jetson', Machine({**HOST, '/proc/device-tree/compatible': b'nvidia,p3768\0nvidia,tegra234\0'}, drivers={}, nodes={}, script='init=999')),
    ('F10D two drivers', Machine({**WORKS, '/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.14': '',
        '/proc/driver/nvidia/version': NVRM % ('Open Kernel Module', '550.54.14')}, script='init=803')),
    ('OK and F075, a CDI file of another version', Machine({**WORKS, '/etc/cdi/nvidia.yaml': CDI % ('550.54.14', '550.54.14'),
        '/usr/lib/libcuda.so.550.54.14': ''})),
    ('OK and F075, a CDI file that names what is gone', Machine({**WORKS, '/var/run/cdi/nvidia.yaml': CDI % (VERSION, VERSION)})),
    ('OK and F103, Docker without the toolkit', Machine({**WORKS, **DOCKER, '/etc/docker/daemon.json': '{"log-driver": "local"}'})),
    ('OK and F104, Docker of a snap', Machine({**WORKS, '/snap/bin/docker': ''})),
    ('OK and F107, nested', Machine({**WORKS, **LXC, **HOOK, '/sys/fs/cgroup/cgroup.controllers': '',
        '/etc/nvidia-container-runtime/config.toml': '[nvidia-container-cli]\n#no-cgroups = true\nno-cgroups = false\n'})),
    ('OK and F109, nothing advertised', Machine({**WORKS, KUBELET: '{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}'})),
    ('OK and F10B, one of two advertised', Machine({**WORKS, KUBELET: '{"Data":{"RegisteredDevices":{"nvidia.com/gpu":["GPU-1"]}},"Checksum":1}'},
        script='count=2')),
    ('OK and F045, slurmd and MIG', Machine({**WORKS, '/usr/sbin/slurmd': '', '/var/log/slurm/slurmd.log':
        'fatal: gpu/nvml: MIG mode is enabled, but no MIG devices were found.\n'}, nvml='mig=1,migs=0')),
    ('F066 a GPU of another machine', Machine(WORKS, script='masked=1', env={'CUDA_VISIBLE_DEVICES': 'GPU-6d1b1c5e-0000-0000-0000-000000000000'})),
    ('F067 masked twice', Machine({**WORKS, **CONTAINER}, script='masked=1', env={'CUDA_VISIBLE_DEVICES': '3'})),
    ('F091 no threads', Machine({**WORKS, **CONTAINER, '/sys/fs/cgroup/cgroup.controllers': '', '/proc/self/cgroup': '0::/\n',
        '/sys/fs/cgroup/pids.max': '100\n', '/sys/fs/cgroup/pids.current': '98\n'}, script='init=304')),
    ('F040 no-cgroups', Machine({**WORKS, **CONTAINER, '/etc/nvidia-container-runtime/config.toml': '  no-cgroups = true\n'},
        nodes=all_nodes('0666', 'EPERM'), script='init=999')),
    ('F025D the module on disk is old as well', Machine({**WORKS, '/proc/driver/nvidia/version': NVRM % ('Open Kernel Module', '550.54.14'),
        KO % '13': module_file('550.54.14')}, script='init=803')),
    ('F025D a compressed module, and what DKMS built', Machine({**WORKS, '/proc/driver/nvidia/version': NVRM % ('Open Kernel Module', '550.54.14'),
        KO % '13': None, (KO % '13') + '.xz': '', '/var/lib/dkms/nvidia/550.54.14/6.1.0-13-amd64/x86_64/module/nvidia.ko.xz': ''}, script='init=803')),
    ('F0A3 a blacklist', Machine({**HOST, **GPU, KO % '13': '', '/etc/modprobe.d/x.conf': '# none\n  blacklist nvidia\n'}, **NO_DRIVER)),
    ('F029 a clone', Machine({**WORKS, **VM, **kernel_log('random: crng reseeded due to virtual machine fork')}, script='init=999')),
    ('F030 no firmware, and no log', Machine({**WORKS, '/dev/kmsg': None, '/lib/firmware/nvidia/%s/gsp_ga10x.bin' % VERSION: None,
        '/lib/firmware/nvidia/550.54.14/gsp_ga10x.bin': ''}, script='init=100')),
    ('F032 firmware stopped, and no log', Machine({**WORKS, '/dev/kmsg': None, '/proc/812/stat': '812 (pt (main) D) D 1 812 812 0\n',
        '/proc/812/wchan': 'os_acquire_mutex'}, script='init=999', nvml='init=999')),
    ('OK and F012, faults of the IOMMU', Machine({**WORKS, **function(SECOND, '0x10de', '0x2684', '0x030000'),
        PCI + ADDRESS + '/iommu_group/type': 'DMA-FQ\n', **kernel_log('nvidia 0000:3b:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0xb]')},
        drivers={ADDRESS: 'nvidia', SECOND: 'nvidia'}, script='count=2')),
    ('F08A keys', Machine({**WORKS, **kernel_log('NVRM: Xid (PCI:0000:3b:00): 151, Key rotation error')}, script='init=999')),
    ('OK and F099, a display', Machine(WORKS, script='watchdog=1')),
    ('OK and F09C, no peers', Machine({**WORKS, **SXM, **function(SECOND, '0x10de', '0x2330', '0x030200')},
        drivers={ADDRESS: 'nvidia', SECOND: 'nvidia'}, script='count=2,peer=0')),
    ('OK and F09E, a full window', Machine(WORKS, nvml='bar1=3')),
    ("F0A1 Debian's name of the module", Machine({**HOST, **GPU, '/lib/modules/6.1.0-13-amd64/updates/dkms/nvidia-current.ko': module_file(),
        '/etc/modprobe.d/nvidia.conf': 'install nvidia modprobe -i nvidia-current $CMDLINE_OPTS\n'}, **NO_DRIVER)),
    ('F059 all wait', Machine({**WORKS, **SXM, **SXM2, **SWITCH, '/proc/77/comm': 'nv-fabricmanage\n'}, drivers={ADDRESS: 'nvidia', SECOND: 'nvidia'},
        script='init=802', nvml='fabric=2,cc=0,count=2')),
    ('F057 SPDM', Machine({**WORKS, **SXM, **VM, **kernel_log('NVRM: GPU0 spdmEstablishSession: SPDM session establishment failed')}, script='init=100')),
    ('F132 no crypto', Machine({**WORKS, **SXM, **VM, **kernel_log('libspdm_check_crypto_backend: Error - libspdm expects LKCA but found stubs!')},
        script='init=100')),
    ('OK and F05C, IMEX is down', Machine({**WORKS, '/usr/bin/nvidia-imex': ''}, nodes={**NODES, 'nvidia-caps-imex-channels/channel0': '195:0:0666:ok'})),
    ('F06C too many clients', Machine(WORKS, script='context=808')),
    ('F06D no pipe', Machine({**WORKS, **CONTAINER}, script='context=46', nvml='mode=3', env={'CUDA_MPS_PIPE_DIRECTORY': '/mps/pipe'})),
    ('F06F vGPU', Machine({**WORKS, **kernel_log('NVRM: Xid (PCI:0000:3b:00): 78, vGPU start error')}, script='init=100')),
    ('OK and F089, NVLink', Machine({**WORKS, **kernel_log('NVRM: Xid (PCI:0000:3b:00): 74, pid=5, NVLink: fatal error detected on link 6')})),
    ('F090 seccomp', Machine({**WORKS, **CONTAINER, '/proc/self/status': 'Name:\tx\nSeccomp:\t2\n'}, script='init=304')),
    ('F058 one waits', Machine({**WORKS, **SXM, **SXM2, **SWITCH, '/proc/77/comm': 'nv-fabricmanage\n'}, drivers={ADDRESS: 'nvidia', SECOND: 'nvidia'},
        script='init=802', nvml='fabric=3,second=2,cc=0,count=2')),
    ('OK and F133, a full /dev/shm', Machine(WORKS, env={'FAKE_DISKS': '/dev/shm=8192:4:0:0,/=30000:9000:1000:900'})),
]
