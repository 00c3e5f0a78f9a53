import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCK = """
import ctypes, resource
from trainer.heap import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def new_pages_of_a_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(64 << 20)))
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages_of_a_block()
given_back = new_pages_of_a_block()
keep_freed_memory()
new_pages_of_a_block()
print(given_back, new_pages_of_a_block())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings")
def test_a_large_block_that_was_freed_is_taken_again_without_new_pages():
    ended = subprocess.run([sys.executable, "-c", BLOCK], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    given_back, kept = map(int, ended.stdout.split())
    assert kept < 10 < given_back  # 32 where pages are of 2 MB
