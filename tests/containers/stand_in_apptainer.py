"""In Apptainer's place: takes its command line apart as it does, and starts the container with podman.

A stand-in, for machines that cannot have Apptainer. Of `run` it knows the options that BHX gives, in Apptainer's grammar
(commas separate binds and variables), and fails as Apptainer fails: on what it does not know, on folders to bind that are
not there, on images that have to be fetched. What is not bound is read-only, as an image of Apptainer's is, and
`--containall` leaves nothing of the machine but the binds. An image file names podman's image in place of holding it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def fatal(what: str) -> None:
    """End as Apptainer does."""
    print(f"FATAL:   {what}", file=sys.stderr)
    sys.exit(255)


def main() -> None:
    """Run the command line."""
    words = sys.argv[1:]
    if words == ["--version"]:
        print("apptainer version 1.3.4")
        return
    if not words or words[0] != "run":
        fatal(f'unknown command "{" ".join(words[:1])}" for "apptainer"')
    given: dict[str, list[str]] = {"--bind": [], "--env": [], "--pwd": []}
    flags: list[str] = []
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in given:
            given[option].append(rest.pop(0))
        elif option in ("--cleanenv", "--containall"):
            flags.append(option)
        else:
            print(f'Error for command "run": unknown flag: {option}', file=sys.stderr)
            sys.exit(1)
    image, arguments = rest[0], rest[1:]
    if image.startswith("docker://"):
        fatal(f"Unable to handle {image} uri: failed to get checksum for {image}: no such host")
    if not Path(image).is_file():
        fatal(
            f"could not open image {image}: failed to retrieve path for {image}: lstat {image}: no such file"
        )
    options = ["--read-only", "--tmpfs", "/home/fmriprep"]
    for bind in ",".join(given["--bind"]).replace(",ro", ":ro").split(","):
        source, destination, *mode = bind.split(":")
        if not Path(source).exists():
            fatal(
                f"container creation failed: mount hook function failure: mount {source}->{destination} error: while "
                f"mounting {source}: mount source {source} doesn't exist"
            )
        options += ["-v", ":".join([source, destination, *mode])]
    for variable in filter(None, ",".join(given["--env"]).split(",")):
        options += ["-e", variable]
    for folder in given["--pwd"]:
        options += ["--workdir", folder]
    missing = {"--cleanenv", "--containall"} - set(flags)
    if missing:  # this stand-in shows nothing else of the machine
        fatal(f"the stand-in only runs with {' '.join(sorted(missing))}")
    name = Path(image).read_text().strip()
    os.execvp("docker", ["docker", "run", "--rm", *options, name, *arguments])


if __name__ == "__main__":
    main()
