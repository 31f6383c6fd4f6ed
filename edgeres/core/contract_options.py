"""Options that state a preprocessing contract, with or without a preset to begin with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from edgeres.core.contract import PRESETS, Color, Contract, Crop, preset, with_resize
from edgeres.core.resize import NO_RESIZE, Interpolation, Resize, ResizeLibrary, ResizeMode
from edgeres.errors import ConfigError
from edgeres.plurals import counted

Lengths = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractOptions:
    """Options of the preprocessing; None means: as in the preset."""

    preset: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    color: Color | None = None
    channels: int | None = None
    """1 is gray; 3 with gray has it in each."""
    input_size: int | Lengths | None = None
    """Side of a square, or height and width."""
    resize: int | Lengths | str | None = None
    """Short side in pixels, height and width, or `none` to crop the image as it is."""
    resize_mode: ResizeMode | None = None
    resize_library: ResizeLibrary | None = None
    interpolation: Interpolation | None = None
    pad_value: int | None = None
    """Value of 0 to 255 beside the image, of a letterbox."""
    scale: float | None = None
    """Factor on the raw 0..255 values."""

    @property
    def empty(self) -> bool:
        """Whether no option was passed."""
        return all(getattr(self, f.name) is None for f in fields(self))

    @property
    def missing(self) -> tuple[str, ...]:
        """Options without which there is no contract where no preset was named."""
        if self.preset is not None:
            return ()
        resize = self.resize_mode if self.resize is None else self.resize
        given = {
            "--mean": self.mean,
            "--std": self.std,
            "--input-size": self.input_size,
            "--resize": resize,
        }
        return tuple(option for option, value in given.items() if value is None)

    def how_to_describe(self) -> str:
        """Returns a sentence with the options that state a preprocessing, and which are missing."""
        lacking = "" if self.empty else f" ({', '.join(self.missing)} missing here)"
        return (
            f"Describe how its images were prepared: --preset {'|'.join(PRESETS)}, with --mean, "
            "--std, --color, --input-size and --resize where they differ. Without a preset all of "
            f"--mean, --std, --input-size and --resize are needed{lacking}, such as --mean "
            "0.5,0.5,0.5 --std 0.5,0.5,0.5 --input-size 64x96 --resize 64x96."
        )

    def resolve(self, default: str | Contract | None = None) -> Contract:
        """Returns the contract: the preset with the given values in place.

        Args:
            default: what stands where no preset was named, itself the name of one or a contract;
                None: then `missing` has to be empty.

        Raises:
            ConfigError: options contradict each other or the preset, or too few are given.
        """
        # A named preset replaces the model's contract as a whole; single values go on top of either.
        named = self.preset or default
        if named is None and self.missing:
            raise ConfigError(f"Without --preset, {', '.join(self.missing)} must be given too.")
        # Without one, what no option gives has no other value that a network could need.
        nothing = Contract(height=1, width=1) if named is None else named
        base = preset(nothing) if isinstance(nothing, str) else nothing
        color, channels = self._color(base)
        size = (base.height, base.width) if self.input_size is None else _pair(self.input_size)
        return with_resize(
            replace(
                base,
                height=size[0],
                width=size[1],
                resize=NO_RESIZE,
                crop=Crop.CENTER,
                color=color,
                channels=channels,
                # A scale is compared with None, since `or` would take a wrong 0 for nothing passed;
                # mean and std are tuples, which are true even where all values are 0.
                mean=self.mean or _of_channels(base.mean, channels, "--mean"),
                std=self.std or _of_channels(base.std, channels, "--std"),
                scale=base.scale if self.scale is None else self.scale,
            ),
            self._resize(base, size),
        )

    def _color(self, base: Contract) -> tuple[Color, int]:
        """Returns the order of the channels and their number."""
        color, channels = self.color, self.channels
        if channels not in {None, 1, 3} or (channels == 1 and color not in {None, Color.GRAY}):
            raise ConfigError(
                f"--channels {channels}{'' if color is None else f' --color {color}'}: a network "
                "takes 1 channel of gray, or 3. Leave --color out for gray."
            )
        if color is None and channels is None:
            return base.color, base.channels
        if color is None:
            colored = base.color if base.channels == 3 else Color.RGB
            return (Color.GRAY if channels == 1 else colored), channels or base.channels
        return color, channels or (1 if color is Color.GRAY else 3)

    def _resize(self, base: Contract, size: Lengths) -> Resize:
        """Returns the resize to an input of `size`, from the options and the base's."""
        lengths, mode, present = self.resize, self.resize_mode, base.resize
        if mode is None:
            by_lengths = {int: ResizeMode.SHORTEST, tuple: ResizeMode.SQUASH, str: ResizeMode.NONE}
            mode = by_lengths.get(type(lengths), present.mode)
        elif lengths is not None and (lengths == "none") is not (mode is ResizeMode.NONE):
            raise ConfigError(
                f"--resize {lengths} contradicts --resize-mode {mode}. Leave one of them out."
            )
        if self.pad_value is not None and mode is not ResizeMode.LETTERBOX:
            raise ConfigError(
                f"--pad-value has no effect on --resize-mode {mode}: only a letterbox pads. Leave "
                "it out."
            )
        short, height, width, pad = None, None, None, 0
        if mode is ResizeMode.SHORTEST:
            # The crop keeps its part of the image: 256 for 224 becomes 292 for 256.
            ratio = min(size) / min(base.height, base.width)
            kept = None if present.short is None else round(present.short * ratio)
            if not isinstance(lengths, int) and (lengths is not None or kept is None):
                raise ConfigError(
                    "--resize-mode shortest takes the length of the short side alone: --resize 256."
                )
            short = lengths if isinstance(lengths, int) else kept
        elif mode is not ResizeMode.NONE:
            height, width = size if lengths is None else _pair(lengths)
            if lengths is None and present.height is not None and present.width is not None:
                height = round(present.height * size[0] / base.height)
                width = round(present.width * size[1] / base.width)
            pad = present.pad if self.pad_value is None else self.pad_value
        return Resize(
            mode=mode,
            short=short,
            height=height,
            width=width,
            interpolation=self.interpolation or present.interpolation,
            library=self.resize_library or present.library,
            pad=pad,
        )


def _pair(size: int | str | Lengths) -> Lengths:
    """Returns height and width, equal for a single number."""
    return size if isinstance(size, tuple) else (int(size), int(size))


def _of_channels(values: tuple[float, ...], channels: int, option: str) -> tuple[float, ...]:
    """Returns a preset's values for a number of channels, where they are the same for each."""
    if len(values) != channels and len(set(values)) > 1:
        raise ConfigError(
            f"The preset has {option} {','.join(map(str, values))} for "
            f"{counted(len(values), 'channel')}, and there is {channels}. Pass {option} with its "
            "value."
        )
    return values if len(values) == channels else values[:1] * channels


NO_OPTIONS = ContractOptions()
"""No option: the contract in the model's metadata holds."""
