"""Sound files as sequences: WAV folders and archives, log-mel bands.

N = samples, T = frames, I = bands.
"""

from __future__ import annotations

import io
import tarfile
import wave
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
    M triangles at equal distances on mel(f) = 2595 log10(1 + f / 700) up to half the rate.

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
        padded = torch.nn.functional.pad(sound, (width // 2, width // 2))
        spectrum = torch.stft(
            padded,
            n_fft=1 << (width - 1).bit_length(),
            hop_length=hop,
            win_length=width,
            window=torch.hann_window(width),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )  # [F, T']
        power = spectrum.abs().square().T[: 1 + len(sound) // hop]
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
    found = False
    for name, data in _files(path):
        found = True
        yield name, _decode(f"{path}: {name}", data, rate)
    if not found:
        raise ValueError(f"{path} holds no WAV file")


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.wav")):
            yield str(file.relative_to(path)), file.read_bytes()
    elif path.suffix.lower() == ".wav":
        yield path.name, path.read_bytes()
    else:
        try:
            with tarfile.open(path) as archive:  # read in memory: nothing is unpacked
                # In the archive's order: going back in a compressed one starts it again.
                streams = ((m.name, archive.extractfile(m)) for m in archive if m.isfile())
                found = [(n, s.read()) for n, s in streams if s and n.lower().endswith(".wav")]
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path} is no folder, WAV file or archive of them") from None
        yield from sorted(found)


def _decode(name: str, data: bytes, rate: int) -> torch.Tensor:
    """Samples [N] of a PCM file, the mean of its channels."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            width, channels, found = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{name} is no WAV file of PCM samples: {error}") from None
    if found != rate:
        raise ValueError(f"{name} has {found} samples a second, the model reads {rate}")
    if width not in (1, 2, 4) or not raw or len(raw) % (width * channels):
        raise ValueError(f"{name} has no whole samples of 8, 16 or 32 bits")
    samples = np.frombuffer(raw, {1: np.uint8, 2: "<i2", 4: "<i4"}[width]).astype(np.float32)
    samples = (samples - 128) / 128 if width == 1 else samples / float(1 << (8 * width - 1))
    return torch.from_numpy(samples.reshape(-1, channels).mean(1))
