"""Standardised monthly anomalies of temperatures in an xarray object on Dask chunks, in three ways.

    python examples/xarray_anomaly.py             # two years of days on a grid of 48 × 96: 13 MB
    python examples/xarray_anomaly.py --years 1   # quicker

The temperatures are made up: seasons, a warming trend and weather that lasts for days. Each way gives, for every day
and place, how many standard deviations of its calendar month the temperature lies from that month's mean:

- as people write it, with ``groupby("time.month")``;
- the same program, compiled by ``gp.chunked.install()``;
- a fused function of the arrays through ``xarray.apply_ufunc(..., dask="allowed")``: it reads each chunk three times,
  in one task each, and puts no grouped copies of the data into memory.

Takes about 13 seconds on two cores, most of it for the graphs of the first two ways: grouping cuts the chunks into
thousands of pieces, each with a task of its own, and there is little in each to compile. It prints:

    temperature: float32 (730, 48, 96), 13 MB in 6 chunks

    xarray             6189 tasks    2409 ms  differs by at most 0.0e+00
    xarray, compiled   6189 tasks    2440 ms  differs by at most 5.5e-06
    fused                26 tasks      53 ms  differs by at most 5.5e-06

    days more than two deviations too warm, year by year: 2.1%, 2.1%
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr

import gpucompute as gp

DAYS = 128  # in a chunk
REPEATS = 2


def temperatures(years: int) -> xr.DataArray:
    """Return degrees Celsius as float32 (time, latitude, longitude), cut along time and in memory."""
    random = np.random.default_rng(0)
    time = pd.date_range("2001-01-01", periods=round(365.25 * years), freq="D")
    latitude = np.linspace(-88, 88, 48, dtype=np.float32)
    longitude = np.arange(0, 360, 3.75, dtype=np.float32)
    angle = np.deg2rad(latitude)[:, None]
    day = np.arange(len(time), dtype=np.float32)[:, None, None]
    season = -12 * np.sin(angle) * np.cos(2 * np.pi * (day - 15) / 365.25)
    weather = random.standard_normal((len(time), len(latitude), len(longitude)), np.float32)
    for i in range(1, len(weather)):  # a day remembers 0.7 of the one before
        weather[i] = 0.7 * weather[i - 1] + 0.7 * weather[i]
    field = 30 * np.cos(angle) - 8 + season + 3 * weather + 0.03 / 365.25 * day
    coordinates = {"time": time, "latitude": latitude, "longitude": longitude}
    array = xr.DataArray(field, coordinates, ("time", "latitude", "longitude"), name="temperature")
    return array.chunk(time=DAYS).persist()


def grouped(field: xr.DataArray) -> xr.DataArray:
    """The usual way."""
    anomaly = field.groupby("time.month") - field.groupby("time.month").mean("time")
    return anomaly.groupby("time.month") / anomaly.groupby("time.month").std("time")


@gp.fuse
def standardised(x: Any, month: Any) -> Any:
    """Return `x` (time, ...) in standard deviations from the mean of each month; `month` is (time, 1, ...)."""
    of_month = month == np.arange(1, 13).reshape(12, 1, 1, 1)
    days = of_month.sum(axis=1)
    index = month[:, 0, 0] - 1
    anomaly = x - (np.where(of_month, x, 0).sum(axis=1) / days).astype(np.float32)[index]
    variance = np.where(of_month, anomaly * anomaly, 0).sum(axis=1) / days
    return anomaly / np.sqrt(variance).astype(np.float32)[index]


def fused(field: xr.DataArray) -> xr.DataArray:
    """The fused function; xarray gives it Dask arrays, and the months with as many axes as the field has."""
    result: xr.DataArray = xr.apply_ufunc(standardised, field, field["time"].dt.month, dask="allowed")
    return result


def tasks(result: xr.DataArray) -> int:
    """Return how many tasks Dask's scheduler gets."""
    (optimised,) = dask.optimize(result)
    return len(dict(optimised.__dask_graph__()))


def main() -> None:
    parser = argparse.ArgumentParser(description="monthly anomalies in three ways")
    parser.add_argument("--years", type=int, default=2)
    field = temperatures(max(1, parser.parse_args().years))
    megabytes, chunks = field.nbytes / 1e6, field.data.npartitions
    print(f"{field.name}: {field.dtype} {field.shape}, {megabytes:.0f} MB in {chunks} chunks\n")
    ways: list[tuple[str, Callable[[xr.DataArray], xr.DataArray], Any]] = [
        ("xarray", grouped, nullcontext),
        ("xarray, compiled", grouped, gp.chunked.install),
        ("fused", fused, nullcontext),
    ]
    wanted: Any = None
    for name, way, context in ways:
        with context():
            count = tasks(way(field))
            seconds = []
            for _ in range(REPEATS):
                began = perf_counter()
                result = way(field).compute()
                seconds.append(perf_counter() - began)
        wanted = result if wanted is None else wanted
        difference = float(abs(result - wanted).max())
        print(f"{name:<17} {count:5} tasks  {min(seconds) * 1e3:6.0f} ms  differs by at most {difference:.1e}")
    warm = [f"{float((result.sel(time=str(year)) > 2).mean()):.1%}" for year in sorted({*field.time.dt.year.values})]
    print(f"\ndays more than two deviations too warm, year by year: {', '.join(warm)}")


if __name__ == "__main__":
    main()
