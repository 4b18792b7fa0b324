"""Movies of any name and with any tags are files, and only what they hold counts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from sherlock_data.errors import InputError
from sherlock_data.stimulus.movie import frames, probe
from tests.corpus.example import call, write_movie

SECONDS = 3
NAMES = [
    "-i.mp4",
    "--help.mp4",
    "two\nlines.mp4",
    "[error] a.mp4",
    "concat:a|b.mp4",
    "http:film.mp4",
    "file:film.mp4",
    "%03d.mp4",
    "$(touch ran).mp4",
    "; touch ran;.mp4",
    "'\".mp4",
]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_movie(path, SECONDS)
    return path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_strange_name_is_only_a_name(
    name: str, film: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(film)
    outcome = call("sherlock-data", "inspect", "--json", "--", name)
    assert outcome.exit_code == 0, outcome.output
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert probe(Path(name)).video_seconds == pytest.approx(SECONDS)
    assert len(list(frames(probe(Path(name)), 4, 4))) == 2 * SECONDS


@pytest.mark.parametrize("name", ["-x.mp4", "two\nlines.mp4"])
def test_a_strange_name_that_does_not_decode_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("no film")
    outcome = call("sherlock-data", "inspect", "--", name)
    assert outcome.exit_code == 1
    assert outcome.stderr.count("\n") == 1
    assert " ".join(name.split()) in outcome.stderr


def test_a_movie_of_a_strange_name_may_be_named_by_a_catalogue(film: bytes, desk: Path) -> None:
    (desk / "raw/film.mp4").rename(desk / "raw/-film\n.mp4")
    text = (desk / "raw/catalog.yaml").read_text()
    (desk / "raw/catalog.yaml").write_text(text.replace("film.mp4", '"-film\\n.mp4"'))
    catalog = ["--catalog", "raw/catalog.yaml", "--out", "new"]
    outcome = call("sherlock-data", "build", "lab", "stimulus", *catalog, "--json")
    assert outcome.exit_code == 0, outcome.output
    assert {row["status"] for row in json.loads(outcome.stdout)["rows"]} == {"built"}


PROTOCOLS = [
    "concat:raw/film.mp4|raw/film.mp4",
    "http://127.0.0.1:1/film.mp4",
    "https://127.0.0.1:1/film.mp4",
    "ftp://127.0.0.1:1/film.mp4",
    "file:raw/film.mp4",
    "data:video/mp4;base64,AAAA",
    "pipe:0",
    "subfile,,start,0,end,9,,:raw/film.mp4",
]


@pytest.mark.parametrize("address", PROTOCOLS)
def test_an_address_is_no_file(address: str, desk: Path) -> None:
    outcome = call("sherlock-models", "decode", "runs/toy", address, "out.mp4")
    assert outcome.exit_code == 1, outcome.output
    [line] = outcome.stderr.strip().splitlines()
    assert "no such movie file" in line
    assert not (desk / "out.mp4").exists()


LISTS = {
    "concat": "ffconcat version 1.0\nfile other.mp4\n",
    "concat of a far file": "ffconcat version 1.0\nfile /etc/hostname\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\nother.mp4\n#EXT-X-ENDLIST\n",
    "hls of the web": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\nhttp://127.0.0.1:1/a.ts\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_list_of_files_is_no_movie_even_where_they_are_there(
    text: str, suffix: str, film: bytes, tmp_path: Path
) -> None:
    (tmp_path / "other.mp4").write_bytes(film)
    listing = tmp_path / f"film{suffix}"
    listing.write_text(text)
    with pytest.raises(InputError, match=r"is no movie|does not decode"):
        probe(listing)


def test_tags_cannot_move_a_movie_in_time(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    lies = [
        "title=Duration: 00:00:01.00, start: 77.0",
        "comment=[Parsed_showinfo_2 @ 0x1] [info] n:   0 pts:    55 ",
        "artist=\n[info]   Duration: 00:00:01.00, start: 78.0",
        "album=[error] nothing is wrong",
    ]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-f", "lavfi"]
    command += ["-i", f"testsrc2=s=32x18:r=2:d={SECONDS}"]
    for lie in lies:
        command += ["-metadata", lie]
    subprocess.run([*command, f"file:{path}"], check=True)
    found = probe(path)
    assert (found.start_s, found.video_seconds) == (0, pytest.approx(SECONDS))
    assert [frame.start_s for frame in frames(found, 4, 4)] == [0, 0.5, 1, 1.5, 2, 2.5]
