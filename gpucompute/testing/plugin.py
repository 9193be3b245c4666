"""pytest for code that has a GPU where there is one.

Loaded by pytest itself where gpucompute is installed. It brings

- the marker ``gpu``: the test needs a CUDA device and is skipped, with the reason, where there is none;
- the fixture ``gpucompute_device``: the test runs once on each device that is there, and its arrays from
  `gpucompute.asarray` and the creation functions are made on it;
- the option ``--gpucompute-devices=cpu,cuda:1``: on these only; one that is not there is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

OPTION = "--gpucompute-devices"
FIXTURE = "gpucompute_device"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("gpucompute").addoption(
        OPTION,
        metavar="DEVICES",
        help=f"where tests with the fixture {FIXTURE} run, such as cpu,cuda:0 (default: all that are usable)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once on each device."""
    if FIXTURE in metafunc.fixturenames:
        names = _devices(metafunc.config)
        if metafunc.definition.get_closest_marker("gpu") is not None:
            names = [name for name in names if name != "cpu"] or names  # on the CPU it will be skipped, with the reason
        metafunc.parametrize(FIXTURE, names, indirect=True, scope="function")


@pytest.fixture
def gpucompute_device(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give the `gpucompute.Device` that is current while the test runs."""
    from ..hardware import use

    with use(request.param) as device:
        yield device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, and say why."""
    marked = [item for item in items if item.get_closest_marker("gpu") is not None]
    if marked and (reason := missing()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def missing() -> str:
    """Return why there is no usable GPU, in one line; empty if there is one."""
    from .. import detect

    found = detect.search()
    if found.gpus and found.cupy:
        return ""
    return "needs a CUDA device; looked at: " + "; ".join(found.looked)


def _devices(config: pytest.Config) -> list[str]:
    """Return the names of the devices to run on."""
    from ..errors import DeviceError, OptionError
    from ..hardware import devices, resolve

    chosen = config.getoption(OPTION)
    if chosen:
        try:
            return [str(resolve(name.strip(), f"{OPTION}: ")) for name in chosen.split(",")]
        except (DeviceError, OptionError) as error:
            raise pytest.UsageError(str(error)) from None
    return [str(device) for device in devices() if device.kind == "cpu" or not missing()]
