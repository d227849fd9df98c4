"""The image is built from `envs/Dockerfile` without a daemon, on a base made of Debian's packages, and its commands run.

It takes as long as installing both environments, so `tests/image/run` starts it, and `make test` skips it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import own_cgroups
import pytest

import bhx_model

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
#: Somebody whom the image does not know, as under Apptainer or `docker run --user`.
SOMEBODY = "12345"

pytestmark = pytest.mark.skipif(
    "BHX_IMAGE_REQUIRED" not in os.environ,
    reason="building takes minutes and 20 GB: tests/image/run starts it",
)


class Image:
    """A built image.

    Parameters
    ----------
    podman : list of str
        The first words of podman's command line.
    """

    NAME = "localhost/bhx"

    def __init__(self, podman: list[str]) -> None:
        self.podman = podman

    def run(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """What a command says in a container without a network; it has to end well."""
        start = [*self.podman, "run", "--rm", "--network=none", *own_cgroups.OPTIONS, *options, self.NAME]
        done = subprocess.run(
            [*own_cgroups.START, *start, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, program: str, interpreter: str = "python") -> str:
        """What a program of Python prints in the image."""
        return self.run("-c", program, options=(f"--entrypoint={interpreter}",))


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    state = Path(tempfile.mkdtemp(prefix="bhx-image-"))
    folders = ["--root", str(state / "root"), "--runroot", str(state / "run"), "--tmpdir", str(state / "tmp")]
    podman = ["podman", *folders, "--cgroup-manager=cgroupfs", "--runtime=crun"]
    try:
        subprocess.run([*podman, "import", "--quiet", str(debian(state)), "localhost/base"], check=True)
        wheels = os.environ.get("WHEELS")
        mounted = [f"--volume={wheels}:{wheels}:ro", f"--build-arg=WHEELS={wheels}"] if wheels else []
        build = [
            "build",
            "--isolation=chroot",
            "--network=host",
            "--layers=false",
            "--build-arg=BASE=localhost/base",
        ]
        recipe = ["--file", str(ROOT / "envs/Dockerfile"), "--tag", Image.NAME, str(ROOT)]
        subprocess.run([*podman, *build, *mounted, *recipe], check=True)
        yield Image(podman)
    finally:
        subprocess.run([*podman, "system", "reset", "--force"], check=False, capture_output=True)
        shutil.rmtree(state, ignore_errors=True)


def debian(state: Path) -> Path:
    """Archive of this machine's release of Debian with Python, which trusts whom this machine trusts."""
    sources = next(
        path for name in ("sources.list.d/debian.sources", "sources.list")
        if (path := Path("/etc/apt") / name).is_file()
    )  # fmt: skip
    archive = state / "base.tar"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates",
         f"--customize-hook=copy-in {CERTIFICATES} {Path(CERTIFICATES).parent}",
         platform.freedesktop_os_release()["VERSION_CODENAME"], archive, sources],
        check=True,
    )  # fmt: skip
    return archive


def test_it_runs_bhx_without_rights_or_network(image):
    assert bhx_model.__version__ in image.run("--version")
    assert image.python("import os; print(os.getuid())").strip() == "1000"


def test_both_environments_have_what_they_are_for(image):
    image.python("import bhx_prep, torch, fsspec, aiohttp, s3fs, gcsfs, huggingface_hub, pydicom, ml4fmri")
    image.python("import ants, deepbet, nipype", interpreter="/opt/bhx/ants/bin/python")


def test_it_holds_no_more_than_it_needs(image):
    found = image.python("from pathlib import Path; print([str(p) for p in Path('/').rglob('.git')])")
    assert found.strip() == "[]"
    assert image.python("from pathlib import Path; print(Path('/src').exists())").strip() == "False"
    labels = subprocess.run(
        [*image.podman, "image", "inspect", "--format", "{{.Config.Labels}}", Image.NAME],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"org.opencontainers.image.version:{bhx_model.__version__}" in labels


@pytest.mark.parametrize("user", ["1000", SOMEBODY])
def test_a_study_is_made_and_planned_in_it(image, tmp_path, user):
    tmp_path.chmod(0o777)
    options = (f"--user={user}", f"--volume={tmp_path}:/study")
    image.run("init", ".", options=options)
    assert (tmp_path / "config.yaml").stat().st_uid == int(user)
    image.run("synth", options=options)
    said = image.run("-n", "tables", options=(*options, "--entrypoint=snakemake"))
    assert "train_encoder" in said
