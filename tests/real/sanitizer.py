"""What a program that was built without a sanitizer needs around it when libcuda.so.1 was built with one."""
import os
import re
import subprocess


def environment(build):
    """LD_PRELOAD with the sanitizers' run-time libraries, which have to come first in the process; empty for an ordinary build."""
    library = os.path.join(build, "lib", "libcuda.so.1")
    listed = subprocess.run(["ldd", library], capture_output=True, text=True).stdout
    needed = re.findall(r"lib(?:asan|tsan|ubsan)\S* => (\S+)", listed)
    return {"LD_PRELOAD": " ".join(needed)} if needed else {}
