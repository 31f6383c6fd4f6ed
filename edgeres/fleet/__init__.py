"""Commands that run on another machine: a job is data, OpenSSH or Dask carries it.

A job is the words of one command, the files that it reads by their hashes, and the names of those
that it writes. The other side keeps files by hash, lays out a folder of the job's own, runs
`edgeres` there in a subprocess, and answers with what it printed and wrote. Knows no command.
"""
