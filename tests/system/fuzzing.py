"""Bundles and Parquet files that somebody made up, opened one after the other; see `test_fuzz.py`.

`python fuzzing.py bundles|tables FIRST COUNT DIRECTORY` prints one JSON object: what became of each case, by outcome,
what was raised that is not of our tree, the longest case and the peak of memory. Cases follow from their number alone,
so that any of them can be opened again.
"""

import base64
import collections
import faulthandler
import hashlib
import json
import os
import pickle
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vae_ops.errors import VaeOpsError
from vae_ops.profiling import profile_source
from vae_ops.table import open_source
from vae_ops.vae import TabularVAE

GOLDEN = Path(__file__).parents[1] / "golden" / "format-2" / "model"
LONGEST_SECONDS = 60
_NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**63, 10**40, 1e308, 0.5, float("nan"), float("inf"), "", "x", "\0", "../x", "A" * 5000,
    [], {}, [[]], [None] * 50, {"array": "encoding/columns/1/state/coder/cuts"}, "numeric", "categorical", "identifier",
)  # fmt: skip


def altered(data: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, cut off, doubled, swapped for others or blanked; never the same."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        place, length = rng.randrange(len(changed) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        way = rng.randrange(6)
        if way == 0:
            changed[place : place + length] = rng.randbytes(length)
        elif way == 1:
            changed[place : place + length] = b""
        elif way == 2:
            changed[place:place] = changed[place : place + length]
        elif way == 3:
            changed[place : place + length] = bytes([rng.choice((0, 0x7F, 0xFF))]) * length
        elif way == 4 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif way == 5 and rng.random() < 0.2:
            del changed[place:]
        if not changed:
            break
    return bytes(changed) if changed != data else altered(data, rng)


def altered_json(value: Any, rng: random.Random) -> Any:
    """The value with one node, chosen at random, replaced, dropped or doubled."""
    nodes: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in list(keys):
            nodes.append((node, key))
            collect(node[key])

    collect(value)
    if not nodes:
        return rng.choice(_NASTY)
    node, key = rng.choice(nodes)
    way = rng.randrange(4)
    if way == 0:
        del node[key]
    elif way == 1:
        other, at = rng.choice(nodes)
        node[key] = (
            json.loads(json.dumps(other[at]))
            if at in (other if isinstance(other, dict) else range(len(other)))
            else None
        )
    else:
        node[key] = rng.choice(_NASTY)
    return value


def altered_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header, not whose numbers, was altered; or one with other numbers of the same kind."""
    end = 8 + int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        place = rng.randrange(end, len(data) - 8)
        return data[:place] + rng.randbytes(8) + data[place + 8 :]
    header = json.dumps(altered_json(json.loads(data[8:end]), rng)).encode()
    return len(header).to_bytes(8, "little") + header + data[end:]


def sign(directory: Path) -> None:
    """Makes the manifest right again, as somebody would who means to be believed."""
    data = {name: (directory / name).read_bytes() for name in ("model.json", "weights.safetensors")}
    files = {
        name: {"bytes": len(one), "blake2b": hashlib.blake2b(one, digest_size=32).hexdigest()}
        for name, one in data.items()
    }
    version = hashlib.blake2b(b"".join(data.values()), digest_size=16).hexdigest()
    (directory / "manifest.json").write_text(json.dumps({"format": 2, "version": version, "files": files}))


def fuzz_bundle(directory: Path, rng: random.Random) -> str:
    """Alters a copy of the golden bundle in one of many ways, and says which."""
    shutil.copytree(GOLDEN, directory)
    way = rng.choice(
        ("bytes", "signed bytes", "json", "json", "json", "tensors", "tensors", "schema", "manifest", "files")
    )
    model, weights, manifest = (directory / name for name in ("model.json", "weights.safetensors", "manifest.json"))
    if way == "files":
        _alter_files(directory, rng)
    elif way == "bytes":
        path = rng.choice((model, weights))
        path.write_bytes(altered(path.read_bytes(), rng))
    elif way == "manifest" and rng.random() < 0.5:
        manifest.write_bytes(altered(manifest.read_bytes(), rng))
    elif way == "manifest":
        manifest.write_text(json.dumps(altered_json(json.loads(manifest.read_text()), rng)))
    else:
        _alter_content(model, weights, way, rng)
        sign(directory)
    return way


def _alter_files(directory: Path, rng: random.Random) -> None:
    path = directory / rng.choice(("model.json", "weights.safetensors", "manifest.json"))
    ways: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: path.mkdir(),
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(GOLDEN / path.name),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path.name),
        lambda: path.write_bytes(pickle.dumps({"a": np.zeros(3)})),
        lambda: path.write_bytes(b""),
    )
    path.unlink()
    rng.choice(ways)()


def _alter_content(model: Path, weights: Path, way: str, rng: random.Random) -> None:
    if way == "tensors":
        weights.write_bytes(altered_tensors(weights.read_bytes(), rng))
    elif way == "json":
        tree = json.loads(model.read_text())
        for _ in range(rng.choice((1, 1, 3))):
            tree = altered_json(tree, rng)
        model.write_text(json.dumps(tree))
    elif way == "schema":
        tree = json.loads(model.read_text())
        columns = [column["state"] for column in tree["encoding"]["columns"]]
        places = [(tree, "schema")] + [
            (state, key) for state in columns for key in state if key in ("value", "categories", "pseudonyms")
        ]
        node, key = rng.choice(places)
        node[key] = base64.b64encode(altered(base64.b64decode(node[key]), rng)).decode()
        model.write_text(json.dumps(tree))
    else:
        path = rng.choice((model, weights))
        path.write_bytes(altered(path.read_bytes(), rng))


def open_bundle(directory: Path) -> str:
    """Loads a bundle; what loads must draw and encode, or say in our words why not."""
    loaded = TabularVAE.load(directory)
    loaded.sample(50, seed=1)
    return "loaded"


def some_table(rng: random.Random) -> pa.Table:
    """A small table of many kinds of columns."""
    draw = np.random.default_rng(rng.randrange(2**32))
    rows = rng.choice((3, 40, 400))
    x = draw.normal(size=rows)
    columns = {
        "x": pa.array(x),
        "f": pa.array(x.astype(np.float32), mask=x > 1),
        "i": pa.array((x * 100).astype(np.int32)),
        "s": pa.array([f"name {int(value * 3)}" for value in x]),
        "d": pa.array([f"kind {int(value)}" for value in x]).dictionary_encode(),
        "b": pa.array(x > 0),
        "t": pa.array((x * 1e9).astype("int64")).cast(pa.timestamp("us", "UTC")),
        "z": pa.array([bytes([int(abs(value) * 40) % 256]) * 4 for value in x]),
        "n": pa.nulls(rows, pa.string()),
    }
    names = rng.sample(sorted(columns), rng.randint(1, len(columns)))
    return pa.table({name: columns[name] for name in names})


def fuzz_table(directory: Path, rng: random.Random) -> str:
    """Writes a Parquet file, or some in partitions, and alters one of them."""
    directory.mkdir()
    options = {
        "compression": rng.choice(("snappy", "zstd", "gzip", "none", "lz4", "brotli")),
        "use_dictionary": rng.random() < 0.5,
        "row_group_size": rng.choice((7, 100, 10_000)),
        "data_page_version": rng.choice(("1.0", "2.0")),
        "data_page_size": rng.choice((64, 2**20)),
        "write_page_index": rng.random() < 0.3,
        "write_page_checksum": rng.random() < 0.2,
    }
    table = some_table(rng)
    paths = [directory / "one.parquet"]
    if rng.random() < 0.3:
        paths = [directory / f"day={day}" / "part.parquet" for day in (1, 2)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path, **options)
    data = paths[-1].read_bytes()
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    way = rng.choice(("anywhere", "footer", "pages", "cut", "other"))
    if way == "footer":
        data = data[:end] + altered(data[end:], rng)
    elif way == "pages":
        data = altered(data[:end], rng)[:end].ljust(end, b"\0") + data[end:]
    elif way == "cut":
        data = data[: rng.randrange(len(data))]
    elif way == "other":
        data = rng.choice((b"", b"PAR1", b"PAR1PAR1", b"PARE" + data[4:], rng.randbytes(500), pickle.dumps(data)))
    else:
        data = altered(data, rng)
    paths[-1].write_bytes(data)
    return way


def open_table(directory: Path) -> str:
    """Opens and profiles a source."""
    profile_source(open_source(directory))
    return "read"


KINDS = {"bundles": (fuzz_bundle, open_bundle), "tables": (fuzz_table, open_table)}


def one_case(kind: str, number: int, directory: Path) -> tuple[str, str]:
    """Makes and opens one case: in which way it was altered, and what became of it."""
    make, open_it = KINDS[kind]
    shutil.rmtree(directory, ignore_errors=True)
    way = make(directory, random.Random(f"{kind} {number}"))
    try:
        return way, open_it(directory)
    except VaeOpsError as error:
        if len(str(error).splitlines()) != 1:
            return way, f"{number}: the message is not one line: {error!r}"
        return way, f"refused: {type(error).__name__}"
    except Exception:  # noqa: BLE001
        return way, f"{number}: {traceback.format_exc(limit=-4)}"


def peak_bytes() -> int:
    """The most memory this program has held; `ru_maxrss` would count what its parent held before it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main(kind: str, first: int, count: int, directory: Path) -> None:
    """Opens the cases and prints what became of them."""
    outcomes: collections.Counter[str] = collections.Counter()
    faults, longest = [], 0.0
    for number in range(first, first + count):
        # A case that hangs ends this process, with a traceback.
        faulthandler.dump_traceback_later(LONGEST_SECONDS, exit=True)
        begin = time.monotonic()
        sys.stderr.write(f"case {number}\n")
        way, outcome = one_case(kind, number, directory / "case")
        longest = max(longest, time.monotonic() - begin)
        if outcome[0].isdigit():
            faults.append(outcome)
        else:
            outcomes[f"{way}: {outcome}"] += 1
    faulthandler.cancel_dump_traceback_later()
    facts = {"outcomes": outcomes, "faults": faults, "longest_seconds": longest, "peak_bytes": peak_bytes()}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
