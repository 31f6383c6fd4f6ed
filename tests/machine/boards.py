"""What real Jetsons report of themselves: output of NVIDIA's tools and files, board by board.

Lines of tegrastats are those that users posted: in the tests of Datadog's agent (Nano, TX2, both
Xaviers, Orin NX, AGX Orin on L4T 36), in jetson_stats' issue 894 (AGX Orin on L4T 39) and in a
public Thor benchmark (L4T 39). Output of nvpmodel and jetson_clocks and the release lines are from
posts on the same boards; repeated lines of further processors are left out. Of Xavier NX the
output of nvpmodel, and of all boards the sysfs files, are written after NVIDIA's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOT_ROOT = "Error: Run this script(/usr/bin/jetson_clocks) as a root user\n"
"""What jetson_clocks prints for everybody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One board's words, and what they mean."""

    model: str
    release: str
    """First line of /etc/nv_tegra_release."""
    l4t: str
    jetpack: str
    tegrastats: str
    nvpmodel: str
    """Output of `nvpmodel -q`."""
    mode: tuple[str, int]
    modes: str
    """POWER_MODEL lines of /etc/nvpmodel.conf."""
    jetson_clocks: str
    """Output of `jetson_clocks --show`."""
    files: Mapping[str, str]
    """What else can be read."""
    rails: tuple[str, ...]
    """Rails that add up to the module."""
    watts: float
    """Their power."""


def hwmon(chip: int, *channels: tuple[str, int, int]) -> dict[str, str]:
    """Returns an INA3221's files from label, millivolts and milliamperes of each channel."""
    folder = f"sys/class/hwmon/hwmon{chip}"
    files = {
        f"{folder}/name": "ina3221\n",
        f"{folder}/in7_label": "sum of shunt voltages\n",
        f"{folder}/in7_input": "1200\n",
    }
    for number, (label, millivolts, milliamperes) in enumerate(channels, start=1):
        files[f"{folder}/in{number}_label"] = f"{label}\n"
        files[f"{folder}/in{number}_input"] = f"{millivolts}\n"
        files[f"{folder}/curr{number}_input"] = f"{milliamperes}\n"
    return files


def ina3221x(address: str, *channels: tuple[str, int]) -> dict[str, str]:
    """Returns the files of L4T 32's driver from label and milliwatts of each channel."""
    folder = f"sys/bus/i2c/drivers/ina3221x/{address}"
    files = {}
    for number, (label, milliwatts) in enumerate(channels):
        files[f"{folder}/rail_name_{number}"] = f"{label}\n"
        files[f"{folder}/in_power{number}_input"] = f"{milliwatts}\n"
    return files


NANO = Board(
    model="NVIDIA Jetson Nano Developer Kit",
    release="# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t210ref, EABI: aarch64, DATE: Fri Jun  9 04:25:08 UTC 2023",
    l4t="32.7.4",
    jetpack="4.6.4",
    tegrastats="RAM 534/3964MB (lfb 98x4MB) SWAP 5/1982MB (cached 1MB) IRAM 0/252kB(lfb 252kB) CPU [16%@204,9%@204,0%@204,0%@204] EMC_FREQ 0%@204 GR3D_FREQ 0%@76 APE 25 PLL@34C CPU@36.5C PMIC@100C GPU@36C AO@39.5C thermal@36.25C POM_5V_IN 1022/1022 POM_5V_GPU 0/0 POM_5V_CPU 204/204",
    nvpmodel="NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n",
    mode=("MAXN", 0),
    modes="< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >\n",
    jetson_clocks=(
        "SOC family:tegra210  Machine:NVIDIA Jetson Nano Developer Kit\n"
        "Online CPUs: 0-3\n"
        "CPU Cluster Switching: Disabled\n"
        "cpu0: Online=1 Governor=schedutil MinFreq=102000 MaxFreq=1428000 CurrentFreq=1036800 IdleStates: WFI=1 c7=1 \n"
        "cpu1: Online=1 Governor=schedutil MinFreq=102000 MaxFreq=1428000 CurrentFreq=921600 IdleStates: WFI=1 c7=1 \n"
        "GPU MinFreq=76800000 MaxFreq=921600000 CurrentFreq=230400000\n"
        "EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=0\n"
        "Fan: speed=0\n"
        "NV Power Mode: MAXN\n"
    ),
    files=ina3221x(
        "6-0040/iio:device0", ("POM_5V_IN", 1895), ("POM_5V_GPU", 82), ("POM_5V_CPU", 288)
    ),
    rails=("POM_5V_IN",),
    watts=1.895,
)

TX2 = Board(
    model="NVIDIA Jetson TX2 Developer Kit",
    release="# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref, EABI: aarch64, DATE: Wed Feb  2 21:33:23 UTC 2022",
    l4t="32.7.1",
    jetpack="4.6.1",
    tegrastats="RAM 2344/7852MB (lfb 1154x4MB) SWAP 0/3926MB (cached 0MB) CPU [1%@345,off,off,1%@345,0%@345,2%@345] EMC_FREQ 4%@1600 GR3D_FREQ 0%@624 APE 150 PLL@37.5C MCPU@37.5C PMIC@100C Tboard@32C GPU@35C BCPU@37.5C thermal@36.5C Tdiode@34.25C VDD_SYS_GPU 152/152 VDD_SYS_SOC 687/687 VDD_4V0_WIFI 0/0 VDD_IN 3056/3056 VDD_SYS_CPU 152/152 VDD_SYS_DDR 883/883",
    nvpmodel="NV Power Mode: MAXP_CORE_ARM\n3\n",
    mode=("MAXP_CORE_ARM", 3),
    modes="< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MAXP_CORE_ARM >\n",
    jetson_clocks=NOT_ROOT,
    files={
        **ina3221x("0-0040/iio_device", ("VDD_SYS_GPU", 152), ("VDD_SYS_SOC", 687)),
        **ina3221x("0-0041/iio_device", ("VDD_IN", 3056), ("VDD_SYS_CPU", 152)),
    },
    rails=("VDD_IN",),
    watts=3.056,
)

XAVIER_NX = Board(
    model="NVIDIA Jetson Xavier NX Developer Kit",
    release="# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 19:57:35 UTC 2023",
    l4t="35.4.1",
    jetpack="5.1.2",
    tegrastats="RAM 4412/7772MB (lfb 237x4MB) SWAP 139/3886MB (cached 2MB) CPU [9%@1190,6%@1190,6%@1190,5%@1190,4%@1190,8%@1267] EMC_FREQ 10%@1600 GR3D_FREQ 62%@306 APE 150 MTS fg 0% bg 0% AO@41.5C GPU@43C PMIC@100C AUX@41.5C CPU@43.5C thermal@42.55C VDD_IN 4067/4067 VDD_CPU_GPU_CV 738/738 VDD_SOC 1353/1353",
    nvpmodel="NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n",
    mode=("MODE_15W_6CORE", 2),
    modes="< POWER_MODEL ID=2 NAME=MODE_15W_6CORE >\n< POWER_MODEL ID=8 NAME=MODE_20W_6CORE >\n",
    jetson_clocks=NOT_ROOT,
    files=hwmon(4, ("VDD_IN", 4960, 820), ("VDD_CPU_GPU_CV", 4960, 148), ("VDD_SOC", 4960, 272)),
    rails=("VDD_IN",),
    watts=4.0672,
)

AGX_XAVIER = Board(
    model="Jetson-AGX",
    release="# R32 (release), REVISION: 6.1, GCID: 27863751, BOARD: t186ref, EABI: aarch64, DATE: Mon Jul 26 19:36:31 UTC 2021",
    l4t="32.6.1",
    jetpack="4.6",
    tegrastats="RAM 721/31927MB (lfb 7291x4MB) SWAP 0/15963MB (cached 0MB) CPU [2%@1190,0%@1190,0%@1190,0%@1190,off,off,off,off] EMC_FREQ 0%@665 GR3D_FREQ 0%@318 APE 150 MTS fg 0% bg 0% AO@37.5C GPU@37.5C Tdiode@40C PMIC@100C AUX@36C CPU@37.5C thermal@36.9C Tboard@37C GPU 0/0 CPU 311/311 SOC 932/932 CV 0/0 VDDRQ 621/621 SYS5V 1482/1482",
    nvpmodel="NVPM WARN: fan mode is not set to cool\nNV Power Mode: MODE_30W_2CORE\n2\n",
    mode=("MODE_30W_2CORE", 2),
    modes="< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W_2CORE >\n",
    jetson_clocks=NOT_ROOT,
    files={
        **ina3221x("1-0040/iio:device0", ("GPU", 0), ("CPU", 311), ("SOC", 932)),
        **ina3221x("1-0041/iio:device1", ("CV", 0), ("VDDRQ", 621), ("SYS5V", 1482)),
    },
    rails=("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    watts=3.346,
)

ORIN_NANO = Board(
    model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    release="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025",
    l4t="36.4.3",
    jetpack="6.2",
    tegrastats="RAM 2505/7775MB (lfb 1429x4MB) SWAP 0/3887MB (cached 0MB) CPU [2%@2035,0%@2035,0%@2035,0%@2035,0%@2034,0%@2035] GR3D_FREQ 45% cpu@38.25C soc2@36.25C soc0@38.5C tj@38.25C soc1@37.25C gpu@36.5C VDD_IN 4976mW/4976mW VDD_CPU_GPU_CV 720mW/720mW VDD_SOC 1480mW/1480mW",
    nvpmodel="NV Power Mode: 25W\n1\n",
    mode=("25W", 1),
    modes=(
        "< PM_CONFIG DEFAULT=2 >\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=3 NAME=7W >\n"
    ),
    jetson_clocks=(
        "SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\n"
        "Online CPUs: 0-5\n"
        "cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=729600 IdleStates: WFI=1 c7=1 \n"
        "cpu2:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=1190400 IdleStates: WFI=1 c7=1 \n"
        "GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000\n"
        "Active GPU TPCs: 4\n"
        "EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0\n"
        "FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=69\n"
        "NV Power Mode: 25W\n"
    ),
    files=hwmon(1, ("VDD_IN", 4984, 1856), ("VDD_CPU_GPU_CV", 4984, 400), ("VDD_SOC", 4984, 296)),
    rails=("VDD_IN",),
    watts=9.250304,
)

ORIN_NX = Board(
    model="NVIDIA Orin NX Developer Kit",
    release="# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref, EABI: aarch64, DATE: Tue Feb 20 04:46:31 UTC 2024",
    l4t="35.5.0",
    jetpack="5.1.3",
    tegrastats="RAM 6334/15388MB (lfb 1770x4MB) SWAP 491/7694MB (cached 0MB) CPU [6%@729,9%@729,5%@729,16%@729,off,off,off,off] EMC_FREQ 0%@2133 GR3D_FREQ 0%@611 VIC_FREQ 729 APE 174 CV0@45.812C CPU@47.937C SOC2@46.093C SOC0@46.968C CV1@46.406C GPU@45.875C tj@48.875C SOC1@48.875C CV2@45.75C VDD_IN 5299mW/5299mW VDD_CPU_GPU_CV 773mW/773mW VDD_SOC 1424mW/1424mW",
    nvpmodel="NV Power Mode: 10W\n1\n",
    mode=("10W", 1),
    modes="< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=10W >\n",
    jetson_clocks=NOT_ROOT,
    files=hwmon(3, ("VDD_IN", 19840, 268), ("VDD_CPU_GPU_CV", 19840, 40), ("VDD_SOC", 19840, 72)),
    rails=("VDD_IN",),
    watts=5.31712,
)

AGX_ORIN = Board(
    model="NVIDIA Jetson AGX Orin Developer Kit",
    release="# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, DATE: Mon Jun  1 09:28:48 PM UTC 2026",
    l4t="39.2.0",
    jetpack="7.2",
    tegrastats="07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,10%@2201] EMC_FREQ 3%@3199 GR3D_FREQ 0%@[1300,1300] NVENC0 off NVDEC0 off APE 174 cpu@52.968C/52.968C soc2@48.25C/48.25C tj@53.062C/53.062C VDD_GPU_SOC 3205mW/3205mW VDD_CPU_CV 4405mW/4405mW VIN_SYS_5V0 4767mW/4767mW VDDQ_VDD2_1V8AO 1091mW/1091mW",
    nvpmodel="NV Power Mode: MAXN\n0\n",
    mode=("MAXN", 0),
    modes="< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=MODE_15W >\n",
    jetson_clocks=(
        "SOC family:tegra234  Machine:NVIDIA Jetson AGX Orin Developer Kit\n"
        "Online CPUs: 0-11, Offline CPUs: \n"
        "cpu0:  Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0 c7=0 \n"
        "cpu11: Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0 c7=0 \n"
        "GPU MinFreq=1300500000 MaxFreq=1300500000 CurrentFreq=1300500000\n"
        "Active GPU TPCs: 8\n"
        "EMC MinFreq=3199000000 MaxFreq=3199000000 CurrentFreq=3199000000\n"
        "NV Power Mode: MAXN\n"
    ),
    files={
        **hwmon(
            5, ("VDD_GPU_SOC", 4900, 2000), ("VDD_CPU_CV", 4900, 1000), ("VIN_SYS_5V0", 5000, 1600)
        ),
        **hwmon(6, ("NC", 5000, 10), ("VDDQ_VDD2_1V8AO", 1800, 500)),
    },
    rails=("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    watts=22.7,
)

AGX_THOR = Board(
    model="NVIDIA Jetson AGX Thor Developer Kit",
    release="# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Fri Aug 22 00:55:42 UTC 2025",
    l4t="38.2.0",
    jetpack="7.0",
    tegrastats="08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,75%@2601,off,7%@2601] EMC_FREQ 34%@4266 GR3D_FREQ @[1574,1574,1574] NVENC0_FREQ @1691 VIC off cpu@58.25C/61.75C tj@66.625C/66.625C gpu@56.937C/66.625C soc012@55.375C/58.781C soc345@55.812C/60.031C VDD_GPU 37939mW/8660mW/37939mW VDD_CPU_SOC_MSS 30059mW/12281mW/30059mW VIN_SYS_5V0 15486mW/7424mW/15486mW VIN 124486mW/36487mW/124486mW",
    nvpmodel="NV Power Mode: 120W\n1\n",
    mode=("120W", 1),
    modes="< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n",
    jetson_clocks=(
        "SOC family:tegra264  Machine:NVIDIA Jetson AGX Thor Developer Kit\n"
        "Online CPUs: 0-13, Offline CPUs:\n"
        "cpu0:  Governor=schedutil MinFreq=2601000 MaxFreq=2601000 CurrentFreq=2601000 IdleStates: WFI=0 cc7=0\n"
        "cpu13: Governor=schedutil MinFreq=2601000 MaxFreq=2601000 CurrentFreq=2601000 IdleStates: WFI=0 cc7=0\n"
        "gpu-gpc-0 MinFreq=1575000000 MaxFreq=1575000000 CurrentFreq=1575000000\n"
        "gpu-nvd-0 MinFreq=1692000000 MaxFreq=1692000000 CurrentFreq=1692000000\n"
        "EMC MinFreq=665600000 MaxFreq=4266000000 CurrentFreq=4266000000 FreqOverride=1\n"
        "PVA0_VPS0: Online=0 MinFreq=0 MaxFreq=1215000000 CurrentFreq=1215000000\n"
        "FAN Dynamic Speed Control=nvfancontrol hwmon1_pwm1=73\n"
        "NV Power Mode: MAXN\n"
    ),
    files={
        **hwmon(
            3, ("VDD_GPU", 12040, 640), ("VDD_CPU_SOC_MSS", 12040, 960), ("VIN_SYS_5V0", 5088, 1740)
        ),
        "sys/class/hwmon/hwmon4/name": "ina238\n",
        "sys/class/hwmon/hwmon4/power1_input": "20986000\n",
    },
    rails=("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
    watts=28.11712,
)

BOARDS: Mapping[str, Board] = {
    "Nano": NANO,
    "TX2": TX2,
    "Xavier NX": XAVIER_NX,
    "AGX Xavier": AGX_XAVIER,
    "Orin Nano": ORIN_NANO,
    "Orin NX": ORIN_NX,
    "AGX Orin": AGX_ORIN,
    "AGX Thor": AGX_THOR,
}
"""Eight boards on seven versions of L4T, from 32 to 39."""
