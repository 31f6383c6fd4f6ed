"""FP16 between and beside integer layers: typing it, computing it on a CPU, and what it cannot hold."""
