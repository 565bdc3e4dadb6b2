"""The command line: parameters from the table, answers, errors in two lines, exit codes, start-up time."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penchant.engine import OPERATIONS
from penchant.surfaces import cli

COMMAND = [sys.executable, "-m", "penchant"]


@pytest.fixture
def toy_cli(toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line on the toy: gives exit code, standard output and standard error."""
    used: dict[str, Any] = {}

    def engine_for(context: Any, progress: Any) -> Any:
        used.update(context.params)
        toy.progress = progress
        return toy

    monkeypatch.setattr(cli, "_engine", engine_for)
    monkeypatch.setenv("PENCHANT_SHOP", str(toy.path))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(arguments))
        told = capsys.readouterr()
        return int(stopped.value.code or 0), told.out, told.err

    run.used = used  # type: ignore[attr-defined]
    return run


def test_fields_become_parameters(toy_cli: Any) -> None:
    code, out, err = toy_cli(
        "add", "4", "--right", "-2", "--twice", "--words", "a", "--words", "b,c", "--colour", "blue", "--json"
    )
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert (answer["total"], answer["words"]) == (4, ["a", "b,c"])
    assert (
        json.loads(toy_cli("add", "4", "--no-twice", "--json")[1])["total"] == 5
    )  # the struct's own default


def test_names_have_dashes(toy_cli: Any, toy: Any) -> None:
    code, out, _ = toy_cli("take-things", "--things", '[{"name": "cup"}]', "--json")
    assert (code, json.loads(out)["names"]) == (0, ["cup"])


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "a"}, {"name": "b"}]',
        '{"name": "a"}\n{"name": "b"}\n',
        '\n{"name": "a"}\r\n\n{"name": "b", "size": null}',
        '[\n{"name": "a"},\n{"name": "b"}\n]',
    ],
)
@pytest.mark.parametrize("way", ["text", "file", "stdin"])
def test_structs_come_as_json(
    toy_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, way: str
) -> None:
    given = text
    if way == "file":
        (tmp_path / "things.json").write_text(text)
        given = f"@{tmp_path / 'things.json'}"
    elif way == "stdin":
        given = "-"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, err = toy_cli("take-things", "--things", given, "--json")
    assert (code, json.loads(out)["names"]) == (0, ["a", "b"]), err


@pytest.mark.parametrize("text", ["", "{", "[{]", '{"name": "a"}\n{', "[" * 100_000, "@/no/such/file", "x"])
def test_bad_json_is_told(toy_cli: Any, text: str) -> None:
    code, out, err = toy_cli("take-things", "--things", text)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "hint: " in err
    assert "Traceback" not in err


def test_one_object_is_a_list_of_one(toy_cli: Any) -> None:
    assert json.loads(toy_cli("take-things", "--things", '{"name": "a"}', "--json")[1])["names"] == ["a"]


def test_files(toy_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"3")
    out = tmp_path / "out"
    code, text, _ = toy_cli(
        "copy", str(tmp_path / "a"), str(tmp_path / "b"), "--note", "none", "--out", str(out)
    )
    assert code == 0
    assert out.read_bytes() == b"123"
    assert str(out) in text


def test_an_optional_argument_is_an_option_too(toy_cli: Any) -> None:
    for arguments in (("u1",), ("--user-id", "u1"), ("--user-id=u1",)):
        assert json.loads(toy_cli("person", *arguments, "--json")[1]) == {"subject": "u1"}
    code, _, err = toy_cli("person", "u1", "--user-id", "u2")
    assert code == 2
    assert "twice" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("fail --how model", 5, ["error: no model (got {'a': 1}) at $.how", "hint: train one"]),
        ("fail --how storage", 4, ["error: the disk is full (got '/somewhere')", "hint: free some space"]),
        ("fail --how base", 1, ["error: no good"]),
        ("fail --how ctrl-c", 130, ["error: stopped", "hint: "]),
        ("add 2000", 2, ["error: add: Expected `int` <= 1000 (got 2000) at $.left", "hint: one number"]),
        ("add x", 2, ["error: ", "'x'", "hint: see `penchant add --help`"]),
        ("add", 2, ["error: Missing argument 'LEFT'", "hint: see `penchant add --help`"]),
        ("add 1 --colour green", 2, ["error: ", "'blue', 'red'"]),
        ("add 1 --wrong", 2, ["error: No such option", "--wrong", "hint: "]),
        ("nothing", 2, ["error: No such command 'nothing'", "hint: see `penchant --help`"]),
    ],
)
def test_errors_are_two_lines(toy_cli: Any, arguments: str, code: int, words: list[str]) -> None:
    found, out, err = toy_cli(*arguments.split())
    assert (found, out) == (code, "")
    for word in words:
        assert word in err
    assert err.lstrip().startswith("error: ")
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 2


def test_bytes_that_are_no_text_are_refused_in_words(toy_cli: Any) -> None:
    code, out, err = toy_cli("add", "1", "--words", os.fsdecode(b"\xff\xfe"))
    assert (code, out) == (2, "")
    assert "not valid UTF-8" in err


def test_a_proposal_is_printed(toy_cli: Any) -> None:
    code, _, err = toy_cli("fail", "--how", "columns")
    assert code == 2
    assert "--write-mapping" in err
    assert '[[mapping]]\nname = "log"' in err


def test_a_crash_is_logged_without_data(toy_cli: Any, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = toy_cli("fail", "--how", "crash", "--shop", str(toy.path))
    assert (code, out) == (1, "")
    assert "RuntimeError" in err
    assert "Traceback" not in err
    (log,) = (toy.path / "logs").iterdir()
    assert str(log) in err
    content = log.read_text()
    assert "conftest.py" in content
    assert "4711" not in content + err
    monkeypatch.setenv("PENCHANT_DEBUG", "1")
    assert "Traceback" in toy_cli("fail", "--how", "crash")[2]


def test_a_crash_outside_a_shop_leaves_no_file(toy_cli: Any, tmp_path: Path) -> None:
    assert toy_cli("fail", "--how", "crash", "--shop", str(tmp_path))[0] == 1
    assert not (tmp_path / "logs").exists()


def test_progress_goes_to_standard_error(toy_cli: Any) -> None:
    code, out, err = toy_cli("long", "--steps", "3", "--json")
    assert (code, json.loads(out)) == (0, {"steps": 3, "out": None})
    assert "stepping: 0 of 3" in err
    assert "loss 1" in err
    assert toy_cli("long", "--steps", "3", "--no-progress")[2] == ""
    assert "stepping" in toy_cli("long", "--steps", "3", "--progress")[2]


def test_without_json_it_is_for_people(toy_cli: Any) -> None:
    _, out, _ = toy_cli("take-things", "--things", '[{"name": "a[b]", "size": 2000.5}, {"name": "b"}]')
    assert "a[b]" in out
    assert "{" not in out


def test_the_help_names_everything(toy_cli: Any) -> None:
    _, out, _ = toy_cli("--help")
    for operation in OPERATIONS.values():
        assert operation.name.replace("_", "-") in out
        assert operation.summary in out
    assert "serve" in out
    _, out, _ = toy_cli("add", "--help")
    for word in (
        "LEFT",
        "one number",
        "--right",
        "--twice / --no-twice",
        "default: 1",
        "[blue|red]",
        "repeated",
    ):
        assert word in out
    assert "option_" not in toy_cli("person", "--help")[1]
    assert toy_cli()[0] == 2


# -- the real thing, as a process ------------------------------------------------------------------------


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options)


def test_every_command_has_help() -> None:
    script = (
        "from penchant.surfaces import cli\n"
        "from penchant.engine import OPERATIONS\n"
        "for name in [*OPERATIONS, 'serve']:\n"
        "    try: cli.main([name.replace('_', '-'), '--help'])\n"
        "    except SystemExit as stop: assert not stop.code, name\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: penchant") == len(OPERATIONS) + 1


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys, time\n"
        "from penchant.surfaces import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ibis', 'duckdb', 'pandas', 'deltalake', 'onnxruntime', 'httpx', 'starlette'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(time.process_time())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60).stdout
        for _ in range(3)
    ]
    assert runs[0].splitlines()[-2] == "[]"
    assert min(float(out.splitlines()[-1]) for out in runs) < 0.8  # 0.3 s on an idle machine


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("penchant 0.")


def test_a_broken_pipe_is_quiet() -> None:
    script = f"{sys.executable} -m penchant --help | true; echo ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        assert done.stdout.strip() in {"0", "1", str(128 + signal.SIGPIPE)}


def test_a_folder_that_is_no_shop(tmp_path: Path) -> None:
    done = run("status", "--shop", str(tmp_path))
    assert done.returncode == 3
    assert "penchant init" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("status", env={**os.environ, "PENCHANT_SHOP": str(tmp_path)}).returncode == 3


def test_shop_and_url_exclude_each_other(tmp_path: Path) -> None:
    done = run("status", "--shop", str(tmp_path), "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "not both" in done.stderr
    assert run("status", "--url", "http://127.0.0.1:1").returncode == 3  # nobody answers


def test_broken_rows_end_with_a_code_of_their_own(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)

    shop, log = str(tmp_path / "shop"), tmp_path / "log.csv"
    assert run("init", shop).returncode == 0
    good = "user_id,item_id,kind,ts\nu1,i1,view,2024-05-01\n"
    log.write_text(good + "u2,,view,2024-05-01\n")
    done = run("ingest", "--shop", shop, "--no-progress", str(log))
    assert (done.returncode, done.stderr) == (0, "")
    log.write_text(good + "u2,i1,view,1970-01-01\n")
    done = run("ingest", "--shop", shop, "--no-progress", "--json", str(log))
    report = json.loads(done.stdout)
    assert (done.returncode, report["broken"], report["files"][0]["already_stored"]) == (7, 1, 1)
    kept = report["files"][0]["quarantine"]
    assert done.stderr.startswith(
        f"error: 1 of 2 rows could not be used, or not be believed; they are in {kept}\nhint: "
    )
    goods = tmp_path / "items.csv"
    goods.write_text("id,title,price,category\nshoe,Shoe,1,A\n,Hat,2,A\n")
    assert run("catalog", "--shop", shop, "--no-progress", str(goods)).returncode == 7
    assert run("erase-user", "--shop", shop, "u1").returncode == 0
    (Path(shop) / "note.txt").write_text("written by customer-4711")
    done = run("erase-user", "--shop", shop, "customer-4711")
    assert (done.returncode, done.stdout) == (8, "")
    assert "note.txt" in done.stderr
    assert "hint: " in done.stderr
