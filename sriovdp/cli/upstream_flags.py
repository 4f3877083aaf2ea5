"""Flags of sriov-network-device-plugin in our own options: a DaemonSet written for it starts our agent.

They are those of its cmd/sriovdp/main.go, of glog, and of images/entrypoint.sh. Go's flags have one dash or two, and
their value after `=` or as the next word; switches have a value after `=` only.
"""

from collections.abc import Sequence

_TAKEN = {"config-file": "--config", "resource-prefix": "--resource-prefix"}
_SWITCHES = {"use-cdi": ["--use-cdi"], "logtostderr": [], "alsologtostderr": []}
_IGNORED = frozenset({"log-dir", "log_dir", "log-level", "v", "vmodule", "stderrthreshold", "log_backtrace_at"})
_FALSE = frozenset({"0", "f", "false"})  # strconv.ParseBool


def translate(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The same command in our options, and a warning for each flag that is ignored. Other words stay as they are."""
    translated: list[str] = []
    ignored: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            translated.append(word)
        elif name in _SWITCHES:
            translated += _SWITCHES[name] if value.lower() not in _FALSE else []
        elif name in _TAKEN:
            translated.append(_TAKEN[name])
            translated += [value] if equals else rest[:1]
            del rest[: 0 if equals else 1]
        elif word == "-v" and not (rest and rest[0].isdecimal()):
            translated.append("--verbose")
        elif name in _IGNORED:
            del rest[: 0 if equals else 1]
            ignored.append(word.partition("=")[0])
        else:
            translated.append(word)
    return translated, [f"{flag} is ignored: the log goes to stderr, and --verbose logs more" for flag in ignored]
