#!/usr/bin/env python3
"""
Programs that nobody here wrote, on farwarp in process and through a server: llama.cpp and PyTorch.

    run.py --build build [--native] [--all] [NAME ...]

fetch.py gets them; a row whose program is not there is skipped and says so. llama.cpp's own test of its operations compares each with the
CPU; the text that a model writes has to be the one that it writes on the CPU. PyTorch's own kernels are machine code for real GPUs
without PTX, so on the software GPU it does what its libraries hold PTX for. Prints TAP. --all: every operation of ggml (an hour).
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# Operations of ggml, and which of their cases, that take seconds on the software GPU. No row needs a cuBLAS kernel without PTX.
OPERATIONS = [("ADD", ""), ("CPY", "type_src=f16"), ("CUMSUM", ""), ("GET_ROWS", "type=q4_0"), ("GROUP_NORM", ""),
              ("MUL_MAT", "type_a=q4_0,type_b=f32,m=16,n=1,k=256"), ("MUL_MAT", "type_a=q8_0,type_b=f32,m=16,n=16,k=256"),
              ("RMS_NORM", ""), ("ROPE", "type=f16"), ("SOFT_MAX", "type=f32"), ("TOP_K", "")]
PROMPT, TOKENS = "Hello my name", "16"


class Skip(Exception):
    pass


class Runner:
    def __init__(self, options):
        self.build = os.path.abspath(options.build)
        self.root = os.path.join(self.build, "real-clients")
        self.native = options.native
        self.folder = None   # of models and sockets
        self.server = {}

    def environment(self, place, libraries, cc):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("FARWARP_", "CUDA_", "GGML_"))}
        if place == "cpu":
            environment["LD_LIBRARY_PATH"] = ":".join(libraries)
            return environment
        if not self.native:
            libraries = [os.path.join(self.build, "lib")] + libraries
            environment.update(FARWARP_SOFT_CC=cc, FARWARP_SOFT_MEM="4G")
            if place == "server":
                environment["FARWARP_SERVER"] = self.serve(cc)
        environment["LD_LIBRARY_PATH"] = ":".join(libraries)
        return environment

    def serve(self, cc):
        """The address of a server whose device has this compute capability."""
        path = os.path.join(self.folder, f"gpu-{cc}.sock")
        if cc not in self.server:
            self.server[cc] = subprocess.Popen([os.path.join(self.build, "farwarp"), "serve", "--mem", "4G", "--listen", "unix:" + path],
                                               env=dict(os.environ, FARWARP_SOFT_CC=cc), stdin=subprocess.DEVNULL,
                                               stderr=subprocess.DEVNULL)
            deadline = time.time() + 10
            while not os.path.exists(path) and time.time() < deadline:
                time.sleep(0.02)
        return "unix:" + path

    def call(self, command, environment, seconds=300):
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                              timeout=seconds, check=False)

    def llama(self, name, place, cc="8.6"):
        binaries = os.path.join(self.root, "@node-llama-cpp-linux-x64-cuda", "package", "bins", "linux-x64-cuda")
        if not os.access(os.path.join(binaries, name), os.X_OK):
            raise Skip("llama.cpp was not fetched; make check-clients fetches it")
        environment = self.environment(place, glob.glob(os.path.join(self.root, "cuda", "nvidia", "*", "lib")) + [binaries], cc)
        if place != "cpu":
            environment["GGML_BACKEND_PATH"] = os.path.join(binaries, "libggml-cuda.so")
        return os.path.join(binaries, name), environment

    def operation(self, name, cases, place):
        program, environment = self.llama("backend-ops", place)
        done = self.call([program, "test", "-b", "CUDA0", "-o", name] + (["-p", cases] if cases else []), environment, 3600)
        lines = done.stdout.decode(errors="replace").splitlines()
        passed = sum("OK" in line and line.startswith("  " + name) for line in lines)
        # A summary that passes over no case at all is no success.
        return done.returncode == 0 and passed > 0, [line for line in lines if "FAIL" in line or "rror" in line][:10] + lines[-5:]

    def text(self, kind, place):
        model = os.path.join(self.folder, kind + ".gguf")
        if not os.path.exists(model):
            subprocess.run([sys.executable, os.path.join(HERE, "tiny_gguf.py"), model, "--type", kind], check=True)
        texts = {}
        for where in ("cpu", place):
            program, environment = self.llama("simple", where)
            done = subprocess.run([program, "-m", model, "-ngl", "0" if where == "cpu" else "99", "-n", TOKENS, PROMPT],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, timeout=300)
            texts[where] = done.stdout
            log = done.stderr.decode(errors="replace")
        on_gpu = "using device CUDA0" in log
        return on_gpu and texts["cpu"] == texts[place] and len(texts["cpu"]) > 20, [repr(texts), f"on the GPU: {on_gpu}"] + log.splitlines()[-5:]

    def torch(self, name, cc, place):
        packages = os.path.join(self.root, "torch")
        if not os.path.exists(os.path.join(packages, ".fetched")):
            raise Skip("PyTorch was not fetched; make check-clients fetches it")
        environment = dict(self.environment(place, [], cc), PYTHONPATH=packages, PYTHONDONTWRITEBYTECODE="1")
        done = self.call([sys.executable, "-W", "ignore", os.path.join(HERE, "torch_parts.py"), name], environment)
        return done.returncode == 0, done.stdout.decode(errors="replace").splitlines()[-8:]


def rows(runner, options):
    places = ["process"] if runner.native else ["process", "server"]
    listed = OPERATIONS
    if options.all:
        program, environment = runner.llama("backend-ops", "cpu")
        lines = runner.call([program, "test", "--list-ops"], environment).stdout.decode().splitlines()
        listed = [(line.strip(" -"), "") for line in lines if line.startswith("  ")]
    for place in places:
        for name, cases in listed:
            yield f"ggml {name} {cases}".strip() + f", {place}", lambda a=(name, cases, place): runner.operation(*a)
        for kind in ("f32", "f16", "q8_0"):
            yield f"llama.cpp writes as on the CPU, {kind}, {place}", lambda a=(kind, place): runner.text(*a)
        for name, cc in (("copies", "8.6"), ("streams", "8.6"), ("fft", "9.0"), ("bmm", "12.0"), ("conv", "12.1")):
            yield f"PyTorch {name}, {place}", lambda a=(name, cc, place): runner.torch(*a)
        if not runner.native:
            yield f"PyTorch is told that its kernels have no PTX, {place}", lambda a=("no kernel", "8.6", place): runner.torch(*a)


def main():
    parser = argparse.ArgumentParser(description="llama.cpp and PyTorch on farwarp.")
    parser.add_argument("--build", required=True)
    parser.add_argument("--native", action="store_true", help="on this machine's own driver")
    parser.add_argument("--all", action="store_true", help="every operation of ggml")
    parser.add_argument("names", nargs="*", help="rows whose name begins like this")
    options = parser.parse_args()
    runner = Runner(options)
    bad = number = 0
    with tempfile.TemporaryDirectory() as runner.folder:
        try:
            for name, check in rows(runner, options):
                if options.names and not name.startswith(tuple(options.names)):
                    continue
                number += 1
                try:
                    passed, lines = check()
                except Skip as why:
                    print(f"ok {number} - {name} # SKIP {why}", flush=True)
                    continue
                except subprocess.TimeoutExpired as why:
                    passed, lines = False, [str(why)]
                if not passed:
                    bad += 1
                    print("".join(f"# {line}\n" for line in lines), end="")
                print(f"{'ok' if passed else 'not ok'} {number} - {name}", flush=True)
        finally:
            for server in runner.server.values():
                server.terminate()
                server.wait()
    print(f"1..{number}")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
