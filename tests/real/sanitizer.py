"""What the tests have to know of a build with a sanitizer, and what a program that was built without one needs around it then."""
import os
import re
import subprocess


def libraries(build):
    """The sanitizers' run-time libraries that libcuda.so.1 of this build needs; none for an ordinary build."""
    listed = subprocess.run(["ldd", os.path.join(build, "lib", "libcuda.so.1")], capture_output=True, text=True).stdout
    return re.findall(r"lib(?:asan|tsan|ubsan)\S* => (\S+)", listed)


def environment(build):
    """LD_PRELOAD with them, as they have to come first in the process; empty for an ordinary build."""
    needed = libraries(build)
    return {"LD_PRELOAD": " ".join(needed)} if needed else {}


def times_slower(build):
    """What to multiply time limits with."""
    return 10 if libraries(build) else 1
