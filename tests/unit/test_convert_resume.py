"""Converting many bags: the same bytes however often, in however many processes, and through whatever interruption."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from recordings import CONTRACT_FILE, ROOT, Recording, Take

from corft.bag_to_dataset import main
from corft_core.contract import Contract
from corft_core.data import EpisodeDataset, part_workers
from corft_core.data.convert import convert, partial_folder
from corft_core.data.store import WriteError

CONTRACT = Contract.load(CONTRACT_FILE)
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "corft_core"), str(ROOT / "ros2_ws/src/corft"),
                                                           *filter(None, sys.path)]), "PYTHONDONTWRITEBYTECODE": "1"}


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder by its bytes."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four recordings of two episodes each, one of them failed."""
    folder = tmp_path_factory.mktemp("bags")
    return [Recording(CONTRACT, [Take(scene_id=f"demo/{k}", idle_s=0.1 * k, duration_s=1.5),
                                 Take(outcome=2 if k != 1 else 3, duration_s=1.2)]).write(folder / f"bag{k}")
            for k in range(4)]


@pytest.fixture(scope="module")
def expected(bags: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run in one process writes."""
    out = tmp_path_factory.mktemp("expected") / "out"
    convert(bags, out, CONTRACT)
    return out


def arguments(bags: Sequence[Path], out: Path, *more: str) -> list[str]:
    return [*map(str, bags), str(out), "--contract", str(CONTRACT_FILE), "--quiet", *more]


def start(bags: Sequence[Path], out: Path, *more: str) -> subprocess.Popen[str]:
    """The program in a process of its own, as `ros2 run` starts it."""
    return subprocess.Popen([sys.executable, "-m", "corft.bag_to_dataset", *arguments(bags, out, *more)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a part is finished; the process stands still then, so that it cannot finish before it is disturbed."""
    deadline = time.monotonic() + 300
    while not list(path.glob("*/part.json")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)


def test_the_number_of_processes_changes_no_byte(bags: list[Path], expected: Path, tmp_path: Path) -> None:
    for jobs in (1, 3):
        convert(bags, tmp_path / "out", CONTRACT, jobs=jobs, overwrite=True)
        assert digests(tmp_path / "out") == digests(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert EpisodeDataset.open(tmp_path / "out").num_episodes == 7


def test_the_cameras_of_a_bag_are_shared_out_without_changing_a_byte(bags: list[Path], tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_workers, "WORTH_SHARING_BYTES", 0)
    joined = spy(monkeypatch)
    convert(bags[:2], tmp_path / "one", CONTRACT, jobs=1)
    assert joined == []
    for jobs in (3, 4):
        convert(bags[:2], tmp_path / f"{jobs}", CONTRACT, jobs=jobs)
        assert digests(tmp_path / f"{jobs}") == digests(tmp_path / "one")
    assert joined == [True] * 2, "with four processes there are two for each of the two bags"
    assert {path.name for path in tmp_path.iterdir()} == {"one", "3", "4"}


def test_a_picture_that_cannot_be_decoded_is_replaced_alike_in_any_number_of_processes(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(CONTRACT, [Take(duration_s=1.5)])
    samples = recording.samples()
    frames = [message for _, stream, message in samples if stream == "wrist"]
    frames[16].step = 1
    monkeypatch.setattr(recording, "samples", lambda: samples)
    bag = recording.write(tmp_path / "bag")
    monkeypatch.setattr(part_workers, "WORTH_SHARING_BYTES", 0)
    joined = spy(monkeypatch)
    for jobs in (1, 2):
        assert convert([bag], tmp_path / f"{jobs}", CONTRACT, jobs=jobs)["undecodable"] == {"wrist": 1}
    assert joined == [False] and digests(tmp_path / "1") == digests(tmp_path / "2")


def spy(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What join_cameras will have answered."""
    answers: list[bool] = []
    join = part_workers.join_cameras

    def noted(folders: Sequence[Path], target: Path) -> bool:
        answers.append(join(folders, target))
        return answers[-1]

    monkeypatch.setattr(part_workers, "join_cameras", noted)
    return answers


def test_the_codec_av1_is_repeatable_too(bags: list[Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(arguments(bags[:1], tmp_path / name, "--codec", "libsvtav1")) == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_twenty_random_moments_the_bytes_stay_the_same(bags: list[Path], tmp_path: Path) -> None:
    chance, out = random.Random(4), tmp_path / "out"
    began = time.monotonic()
    undisturbed = start(bags, out, "--jobs", "2")
    assert undisturbed.wait() == 0, undisturbed.communicate()
    took_s, expected = time.monotonic() - began, digests(out)
    finished = 0
    for _ in range(20):
        if out.exists():
            assert digests(out) == expected  # killed after the rename, or never
            finished += 1
            os.rename(out, tmp_path / f"done{finished}")
        process = start(bags, out, "--jobs", "2", "--overwrite")
        time.sleep(chance.uniform(0.1, took_s))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(bags, out, "--jobs", "2", "--overwrite")
    assert process.wait() == 0, process.communicate()
    assert digests(out) == expected and not partial_folder(out).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_goes_on(bags: list[Path], tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    for _ in range(5):  # on a busy machine it may be done before the signal comes
        process = start(bags, out, "--jobs", "1", "--overwrite")
        wait_for(partial_folder(out), process)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        _, message = process.communicate()
        if process.returncode:
            break
        shutil.rmtree(out)
    assert process.returncode == 130 and not out.exists()
    assert "run the same command again" in message and "--fresh" in message and "Traceback" not in message
    part = next(partial_folder(out).glob("*/part.json"))
    text = part.read_text()
    part.write_text(text.replace('"operator_id": "test"', '"operator_id": "kept"'))  # tells that it was not made again
    assert main(arguments(bags, out)) == 0
    assert '"operator_id": "kept"' in (out / "meta/corft/episodes.json").read_text()
    assert not partial_folder(out).exists()


def test_a_run_that_was_ended_while_joining_only_joins(bags: list[Path], expected: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("corft_core.data.convert.join_parts", ended)
        with pytest.raises(KeyboardInterrupt):
            convert(bags, tmp_path / "out", CONTRACT, jobs=8)
    assert len(list(partial_folder(tmp_path / "out").glob("*/part.json"))) == len(bags)
    monkeypatch.setattr("corft_core.data.part_workers.convert_bag", ended)
    convert(bags, tmp_path / "out", CONTRACT, jobs=8)
    assert digests(tmp_path / "out") == digests(expected)


def test_fresh_starts_anew(bags: list[Path], expected: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "out", partial_folder(tmp_path / "out")
    process = start(bags, out, "--jobs", "1")
    wait_for(partial, process)
    process.kill()
    process.communicate()
    (part,) = list(partial.glob("*/part.json"))[:1]
    part.write_text("{}")  # would not do
    convert(bags, out, CONTRACT, fresh=True)
    assert digests(out) == digests(expected) and not partial.exists()


def test_a_bag_that_changed_meanwhile_is_converted_again(bags: list[Path], tmp_path: Path) -> None:
    out, bag = tmp_path / "out", tmp_path / "bag"
    Recording(CONTRACT, [Take(duration_s=1.0)]).write(bag)
    process = start([bag, *bags], out, "--jobs", "1")
    wait_for(partial_folder(out), process)
    process.kill()
    process.communicate()
    shutil.rmtree(bag)
    Recording(CONTRACT, [Take("another task", duration_s=1.0)]).write(bag)
    convert([bag, *bags], out, CONTRACT)
    assert EpisodeDataset.open(out).instructions[0] == "another task"


def test_two_conversions_to_one_folder_do_not_mix(bags: list[Path], tmp_path: Path) -> None:
    process = start(bags, tmp_path / "out", "--jobs", "1")
    wait_for(partial_folder(tmp_path / "out"), process)
    with pytest.raises(WriteError, match="another conversion"):
        convert(bags, tmp_path / "out", CONTRACT)
    process.send_signal(signal.SIGCONT)
    output = process.communicate()
    assert process.returncode == 0, output


def test_a_full_disk_exits_3_and_keeps_finished_bags(bags: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    long = Recording(CONTRACT, [Take(duration_s=12.0)]).write(tmp_path / "long")
    command = [sys.executable, "-m", "corft.bag_to_dataset", *arguments([bags[0], long], out, "--jobs", "1")]
    limit = 24_000  # between the largest file of a 1.5 s and of a 12 s episode
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=200,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert result.returncode == 3, result.stderr
    assert "no space left" in result.stderr and "are kept" in result.stderr and "Traceback" not in result.stderr
    assert not out.exists()
    assert len(list(partial_folder(out).glob("*/part.json"))) == 1
    assert main(arguments([bags[0], long], out)) == 0


def test_a_bag_that_cannot_be_read_is_left_out_and_told(bags: list[Path], tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    junk = tmp_path / "junk.mcap"
    junk.write_bytes(random.Random(1).randbytes(20_000))
    for jobs in ("1", "2"):
        assert main(arguments([bags[0], junk, bags[2]], tmp_path / "out", "--overwrite", "--jobs", jobs)) == 1
        said = capsys.readouterr().out
        assert f"LOST: {junk} left out" in said
        assert EpisodeDataset.open(tmp_path / "out").scene_ids == ["demo/0", "demo/0", "demo/2", "demo/0"]
    page = (tmp_path / "out/meta/corft/report.html").read_text()
    assert "junk.mcap left out" in page and page.count("<svg") == 2


def test_a_bag_given_twice_is_refused(bags: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments([bags[0], bags[0]], tmp_path / "out")) == 2
    assert "more than once" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
