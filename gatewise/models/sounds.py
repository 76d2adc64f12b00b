"""Sound files as sequences: WAV folders and archives, log-mel bands.

N = samples, T = frames, I = bands.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import wave
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

_WINDOW, _HOP = 0.025, 0.010  # seconds
_QUIET = 1e-6  # power under which everything is silence: about the noise of 16 bits


@dataclass(frozen=True)
class LogMel:
    """Short-time spectra on a mel scale, in nats: what a recogniser reads of a sound.

    x_ti = log(1e-6 + Σ_f M_if |X_tf|²), with X the spectrum of a 25 ms Hann window every 10 ms and
    M triangles at equal distances on mel(f) = 2595 log10(1 + f / 700) up to half the rate. Frame t
    is centred on its time; outside the sound there is silence.

    Source: Davis & Mermelstein, 1980.

    >>> LogMel(rate=8000, bands=40)(torch.zeros(4000)).shape
    torch.Size([51, 40])
    """

    rate: int = 8000
    bands: int = 40

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("rate", self.rate, 1000, 1 << 20),
            ("bands", self.bands, 1, 512),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}")
            if not least <= value <= most:
                raise ValueError(f"{name} must be between {least} and {most:,}, got {value}")

    def __call__(self, sound: torch.Tensor) -> torch.Tensor:
        """Samples [N] in -1…1 to [T, I], T = 1 + N // hop."""
        width, hop = round(_WINDOW * self.rate), round(_HOP * self.rate)
        spectrum = torch.stft(
            sound,
            n_fft=1 << (width - 1).bit_length(),
            hop_length=hop,
            win_length=width,
            window=torch.hann_window(width),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )  # [F, T]
        power = spectrum.abs().square().T
        return (power @ _triangles(self.rate, self.bands, power.shape[1]) + _QUIET).log()


@cache
def _triangles(rate: int, bands: int, bins: int) -> torch.Tensor:
    """M transposed: [F, I]."""
    mel = torch.linspace(0, 2595 * np.log10(1 + rate / 1400), bands + 2, dtype=torch.float64)
    corners = 700 * (10 ** (mel / 2595) - 1)  # Hz
    f = torch.linspace(0, rate / 2, bins, dtype=torch.float64)[:, None]
    rising = (f - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - f) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


def read_sounds(path: Path, rate: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Every WAV file under a folder, in a .tar or .tar.gz, or the one at `path`: name, samples.

    Names are relative to `path`, in order. Raises ValueError where there is none, one is damaged,
    or one has another rate: a network that has learned at one rate mishears every other.
    """
    for name, data in _files(path):
        yield name, _decode(f"{path}: {name}", data, rate)


def sound_names(path: Path) -> list[str]:
    """The names that `read_sounds` gives; raises as it does."""
    return [name for name, _ in _files(path)]


def folder_of(path: Path) -> Path:
    """The folder that the sounds at `path` lie in; that of an archive is none of theirs."""
    if path.is_dir():
        return path.resolve()
    return path.resolve().parent if _is_wav(path) else Path()


def _is_wav(path: Path) -> bool:
    return path.suffix.lower() == ".wav"


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if _is_wav(p) and p.is_file())
        found = ((str(file.relative_to(path)), file.read_bytes()) for file in files)
    elif _is_wav(path):
        found = iter([(path.name, path.read_bytes())])
    else:
        found = iter(_archived(path))
    first = next(found, None)
    if first is None:
        raise ValueError(f"{path} holds no WAV file")
    yield first
    yield from found


def _archived(path: Path) -> list[tuple[str, bytes]]:
    """The WAV files of an archive, by name. It is read in memory: nothing is unpacked."""
    try:
        raw = _decompressed(path.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            # Links too: equal files of a folder are often kept so.
            kept = (m for m in archive if m.isfile() or m.islnk() or m.issym())
            streams = ((m.name, archive.extractfile(m)) for m in kept)
            found = [(n, s.read()) for n, s in streams if s and _is_wav(Path(n))]
            rest = raw[archive.offset :]
    except FileNotFoundError:
        raise
    except (
        tarfile.TarError,
        KeyError,
        EOFError,
        OSError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise ValueError(
            f"{path} is no folder, WAV file or archive of them, or it is damaged: {error}"
        ) from None
    if rest.strip(b"\0"):  # a header that is none ends an archive like its end
        raise ValueError(f"{path} is damaged at its byte {len(raw) - len(rest):,}")
    return sorted(found)


def _decompressed(raw: bytes) -> bytes:
    """What was compressed, to the end, where its checksum is."""
    for magic, method in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
        if raw.startswith(magic):
            return method.decompress(raw)
    return raw


def _decode(name: str, data: bytes, rate: int) -> torch.Tensor:
    """Samples [N] of a PCM file, the mean of its channels."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            width, channels, found = file.getsampwidth(), file.getnchannels(), file.getframerate()
            frames = file.getnframes()
            raw = file.readframes(frames)
    except (wave.Error, EOFError, RuntimeError) as error:  # the last: a chunk beyond the end
        raise ValueError(f"{name} is no WAV file of PCM samples: {error}") from None
    if found != rate:
        raise ValueError(f"{name} has {found} samples a second, the model reads {rate}")
    if width not in (1, 2, 4) or not raw or len(raw) % (width * channels):
        raise ValueError(f"{name} has no whole samples of 8, 16 or 32 bits")
    if len(raw) != frames * width * channels:
        raise ValueError(
            f"{name} is cut short: {len(raw) // (width * channels):,} samples of {frames:,}"
        )
    samples = np.frombuffer(raw, {1: np.uint8, 2: "<i2", 4: "<i4"}[width]).astype(np.float32)
    samples = (samples - 128) / 128 if width == 1 else samples / float(1 << (8 * width - 1))
    return torch.from_numpy(samples.reshape(-1, channels).mean(1))
