"""Files of a pretend machine, laid out as Linux has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def lay_out(root: Path, files: Mapping[str, str]) -> Path:
    """Writes the files below a folder and returns it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"

CALM: Mapping[str, str] = {
    "proc/stat": "cpu  1000 0 200 8000 100 0 50 0 30 5\ncpu0 1 2 3\ncpu1 1 2 3\nintr 1\n",
    "proc/self/stat": "77 (edge res) R 1 1 1 0 -1 0 0 0 0 0 400 100 0 0 20 0 3 0 9 0 0\n",
    "proc/self/cgroup": "0::/bench/run\n",
    "proc/loadavg": "0.50 0.40 0.30 1/200 4321\n",
    "proc/pressure/memory": (
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=4000\n"
    ),
    "proc/vmstat": "nr_free_pages 12345\npswpin 10\npswpout 20\nzswpin 99\n",
    "sys/fs/cgroup/bench/cpu.stat": "usage_usec 900\nnr_periods 70\nnr_throttled 3\n",
    "sys/fs/cgroup/bench/run/cpu.stat": "usage_usec 500\nnr_periods 50\nnr_throttled 4\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 1500\n",
    f"{CPU}/cpufreq/policy0/scaling_governor": "performance\n",
    f"{CPU}/cpufreq/policy0/scaling_cur_freq": "1728000\n",
    f"{CPU}/cpufreq/policy0/scaling_min_freq": "1728000\n",
    f"{CPU}/cpufreq/policy0/scaling_max_freq": "1728000\n",
    f"{CPU}/cpufreq/policy4/scaling_governor": "performance\n",
    f"{CPU}/cpufreq/policy4/scaling_min_freq": "729600\n",
    f"{CPU}/cpufreq/policy4/scaling_max_freq": "2201600\n",
    f"{CPU}/cpufreq/policy4/scaling_cur_freq": "2201600\n",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "2\n",
    f"{CPU}/cpu0/thermal_throttle/package_throttle_count": "5\n",
    f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
    f"{THERMAL}/thermal_zone0/temp": "48500\n",
    f"{THERMAL}/thermal_zone0/trip_point_0_type": "active\n",
    f"{THERMAL}/thermal_zone0/trip_point_0_temp": "50000\n",
    f"{THERMAL}/thermal_zone0/trip_point_1_type": "passive\n",
    f"{THERMAL}/thermal_zone0/trip_point_1_temp": "99000\n",
    f"{THERMAL}/thermal_zone1/type": "gpu-thermal\n",
    f"{THERMAL}/thermal_zone1/temp": "61000\n",
    f"{THERMAL}/thermal_zone1/trip_point_0_type": "passive\n",
    f"{THERMAL}/thermal_zone1/trip_point_0_temp": "99000\n",
    f"{THERMAL}/thermal_zone2/type": "x86_pkg_temp\n",
    f"{THERMAL}/thermal_zone2/temp": "40000\n",
    f"{THERMAL}/thermal_zone2/trip_point_0_type": "passive\n",
    f"{THERMAL}/thermal_zone2/trip_point_0_temp": "0\n",
    f"{THERMAL}/cooling_device0/type": "pwm-fan\n",
    f"{THERMAL}/cooling_device0/cur_state": "3\n",
    f"{THERMAL}/cooling_device1/type": "cpu-throttle-alert\n",
    f"{THERMAL}/cooling_device1/cur_state": "0\n",
    f"{THERMAL}/cooling_device2/type": "thermal-cpufreq-0\n",
    f"{THERMAL}/cooling_device2/cur_state": "0\n",
    "sys/class/hwmon/hwmon1/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon1/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon1/oc3_event_cnt": "7\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1300500000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1300500000\n",
}
"""A board whose every file can be read and on which nothing happens. Written after the kernel's
documentation of each file; names of zones, devices and counters as on L4T 36."""
