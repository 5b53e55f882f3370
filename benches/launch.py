"""Runs a command for `scenarios.py` and tells what it took. It is a process of its own, without its parent's inputs, since
the peak of a child begins with the pages of whoever started it, also behind an exec."""
import os
import sys
import time

report, command = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(report, False)
start = time.perf_counter()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
took = time.perf_counter() - start
os.write(report, b"%d %.6f %d" % (os.waitstatus_to_exitcode(status), took, usage.ru_maxrss))
