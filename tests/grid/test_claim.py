from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from pet_bench.grid.claim import Taken, claim, taken
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.grid.execute.storage import storage_fault

HOLD = (
    "import sys; from pathlib import Path; from pet_bench.grid.claim import claim\n"
    "with claim(Path(sys.argv[1]), 'a'): print('held', flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_a_claim_holds_between_processes_and_ends_with_its_own(holder, tmp_path, end):
    assert taken(tmp_path, "a")
    assert not taken(tmp_path, "b")
    with pytest.raises(Taken), claim(tmp_path, "a"):
        pytest.fail("two processes hold one trial")
    with claim(tmp_path, "b"):
        assert taken(tmp_path, "b")
    if end == "kill":
        holder.send_signal(signal.SIGKILL)
    else:
        holder.communicate()
    holder.wait()
    assert not taken(tmp_path, "a")
    with claim(tmp_path, "a"):
        pass


def test_looking_takes_nothing_and_leaves_nothing(tmp_path):
    assert not taken(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


def raised(number: int) -> OSError:
    return OSError(number, os.strerror(number), "somewhere")


def wrapped(number: int) -> Exception:
    try:
        try:
            raise raised(number)
        except OSError as error:
            raise RuntimeError("writing the predictions") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("make", [raised, wrapped])
def test_faults_of_the_storage(make, number):
    assert storage_fault(make(number)) == os.strerror(number)


@pytest.mark.parametrize("error", [raised(errno.ENOENT), wrapped(errno.EACCES), ValueError("no space left in the ark")])
def test_other_faults(error):
    assert storage_fault(error) is None


def test_the_stop_flag(tmp_path):
    first, second = StopFlag.of(tmp_path), StopFlag.of(tmp_path)
    first.put_up()
    assert first.is_up
    assert not second.is_up, "the flag of one run stops another"
    assert StopFlag(first.path).is_up
    first.take_down()
    first.take_down()
    assert not first.is_up
