"""How batches of cached tokens are written."""

from __future__ import annotations

from small_disk import mounted, remount

from bhx_model.file_hash import file_sha256
from bhx_model.training import tokens


def test_a_disk_that_fills_up_leaves_whole_files_and_is_named(trained, tmp_path, caplog):
    """With more room the tokens that fit are not encoded again, and the cache is that of a large disk."""
    place, files = tmp_path / "disk", trained["tokens_town"].parent
    words = ["--structure", str(trained["structure"]), "--function", str(trained["function"])]
    words += [
        "--shards",
        str(trained["town"]),
        "--rois",
        str(trained["rois"]),
        "--out",
        str(place / "tokens"),
    ]
    first = (files / "function-00000.tar").stat().st_size
    with mounted(place, str(first + 30_000)):
        assert tokens.main(words) == 1
        (said,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert said.startswith(f"{place / 'tokens'}/")
        assert "the disk is full: free some space" in said
        left = [path.name for path in sorted((place / "tokens").iterdir())]
        assert left == ["function-00000.json", "function-00000.tar"]
        remount(place, "size=64m")
        caplog.clear()
        with caplog.at_level("INFO"):
            assert tokens.main(words) == 0
        assert "4 of them by this process, which has 1 of these" in caplog.text
        for path in sorted(files.iterdir()):
            assert file_sha256(place / "tokens" / path.name) == file_sha256(path), path.name
