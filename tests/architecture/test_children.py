"""Programs that are started: where, with which words, and never with one of a user's. Read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2] / "src" / "calotype"
TREES: Final = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}

# Where a program is started, and which.
STARTERS: Final = {
    "disks/sandbox.py": "whatever runs in the sandbox, and the trial of it at start",
    "disks/guest/reader/nbd.py": "qemu-nbd, by a child that is in the sandbox itself",
    "disks/guest/reader/btrfs.py": "zstd, by a child that is in the sandbox itself",
    "servers/virsh.py": "virsh, with ids and names that have been checked",
    "supervisor.py": "the processes of the service",
    "cli/demo.py": "the service, and qemu-img on files that the demo has made",
}
STARTING: Final = frozenset(
    {"subprocess.Popen", "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"}
    | {"asyncio.create_subprocess_exec", "os.posix_spawn", "os.posix_spawnp", "os.fork", "os.forkpty"}
    | {f"os.{kind}{how}" for kind in ("exec", "spawn") for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
)
SHELLS: Final = frozenset(
    {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"}
)
# What stands in a command beside constants: names inside the sandbox, numbers, names of formats from tables of ours,
# and images as `named_for_qemu` tells of them, which is by their driver. Nothing of these is a user's.
WORDS: Final = frozenset(
    {
        "image",
        "*images",
        "DRIVERS[kind.format]",
        "DRIVERS[DiskFormat.QCOW2]",
        "*kind.flags",
        "','.join(kind.options)",
        "OUT_FILE",
        "OUT_FOLDER",
        "f'--socket={OUT_FOLDER}/{SOCKET}'",
        "f'{OUT_FOLDER}/{UNPACKED}'",
        "f'{OUT_FOLDER}/{piece.name}'",  # a number that we have given it
        "inside(0)",
        "inside(1)",
        "str(window.offset)",
        "str(window.length)",
        "ZSTD_LEVEL",
        "ZSTD_WINDOW",
    }
)
# Names in a function that have an image as qemu is told of it, and the only way to get one.
IMAGES: Final = frozenset({"image", "images"})
NAMING: Final = frozenset({"named_for_qemu", "_chain", "_json"})
QEMU: Final = frozenset({"qemu-img", "qemu-nbd", "qemu-io"})
RUNNING: Final = ("sandbox.run", "self._qemu_img")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def values(function: ast.AST, name: str) -> Iterator[ast.expr]:
    """What is given to a name in a function."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                yield node.value


def words(expression: ast.expr, function: ast.AST) -> Iterator[str]:
    """The words of a command that are not constants. A name that has a list is looked up in the function."""
    match expression:
        case ast.Constant():
            return
        case ast.List() | ast.Tuple():
            for element in expression.elts:
                yield from words(element, function)
        case ast.IfExp():
            yield from words(expression.body, function)
            yield from words(expression.orelse, function)
        case ast.ListComp():
            yield from words(expression.elt, function)
        case ast.Starred(value=ast.Name(id=name) as value) if name not in IMAGES:
            yield from words(value, function)
        case ast.Starred(value=ast.IfExp() as value):
            yield from words(value, function)
        case ast.Name(id=name) if name not in IMAGES and (given := list(values(function, name))):
            for one in given:
                yield from words(one, function)
        case ast.Call(func=ast.Name(id=name)) if name in NAMING:
            return
        case ast.Await(value=ast.Call(args=[ast.Name(id="named_for_qemu"), *_])):
            return
        case _:
            yield ast.unparse(expression)


def commands(module: str) -> Iterator[tuple[ast.expr, Function]]:
    for function in functions(TREES[module]):
        for name, call in calls(function):
            if name.lower().endswith(RUNNING) and call.args:
                yield call.args[0], function


def test_programs_are_started_where_it_is_known() -> None:
    there = {module for module, tree in TREES.items() if any(name in STARTING for name, _ in calls(tree))}

    assert there == STARTERS.keys()


def test_no_shell_is_ever_started() -> None:
    for module, tree in TREES.items():
        for name, call in calls(tree):
            assert name not in SHELLS, module
            for keyword in call.keywords:
                assert keyword.arg != "shell", module


def test_no_name_of_a_starter_is_imported_alone() -> None:
    """So that the tests above see every use."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in ("subprocess", "os", "asyncio"):
                names = {f"{node.module}.{name.name}" for name in node.names}
                assert not names & (STARTING | SHELLS), module


def test_a_command_in_the_sandbox_has_only_words_of_ours() -> None:
    found = {
        word
        for module in TREES
        for argv, function in commands(module)
        if not (module == "disks/convert.py" and ast.unparse(argv) == "['qemu-img', *arguments]")
        for word in words(argv, function)
    }

    assert found - WORDS == set(), "a word that nobody has judged stands in a command"
    assert found & {"inside(0)", "OUT_FILE", "image"} == {"inside(0)", "OUT_FILE", "image"}


def test_qemu_is_told_of_an_image_by_its_driver_always() -> None:
    for module in TREES:
        for argv, function in commands(module):
            for name in IMAGES & set(words(argv, function)):
                given = list(values(function, name))
                parameters = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
                assert given or name in parameters, f"{module} {function.name}"
                for value in given:
                    made = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
                    assert made & NAMING, f"{module} {function.name}: {ast.unparse(value)}"


def test_qemu_is_started_in_the_sandbox_or_by_the_demo_with_formats() -> None:
    """Of the demo every run names the formats: those of all images but one that is written."""
    there = set()
    for module, tree in TREES.items():
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in QEMU and id(node) not in documentation:
                there.add(module)
    assert there == {
        "disks/convert.py",
        "disks/measure.py",
        "disks/writers/run.py",
        "disks/guest/reader/nbd.py",
        "cli/demo.py",
    }
    runs = [call for name, call in calls(TREES["cli/demo.py"]) if name == "tool"]
    assert len(runs) >= 3
    for run in runs:
        given = [argument.value for argument in run.args if isinstance(argument, ast.Constant)]
        assert "-f" in given, ast.unparse(run)
        assert given[0] != "compare" or "-F" in given, ast.unparse(run)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("async def f(s, key):\n    await s._sandbox.run(['zstd', key])", {"key"}),
        (
            "async def f(s, key):\n    argv = ['zstd', *(['-o', key] if key else [])]\n    await s.sandbox.run(argv)",
            {"key"},
        ),
        ("async def f(s):\n    await s.sandbox.run(['a', inside(0)])", {"inside(0)"}),
        ("async def f(s, x):\n    more = [x.name]\n    await s._qemu_img(['info', *more])", set()),
    ],
)
def test_a_word_is_found_however_it_comes_into_a_command(source: str, found: set[str]) -> None:
    (function,) = functions(ast.parse(source))
    argv = [call.args[0] for name, call in calls(function) if name.lower().endswith(("sandbox.run", "self._qemu_img"))]

    assert {word for one in argv for word in words(one, function)} == found
