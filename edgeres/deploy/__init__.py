"""An engine as a folder that runs elsewhere: Triton, DeepStream, or a program of one file.

What a runtime cannot express of the preprocessing contract is refused with the ways out.
"""

from edgeres.deploy.deploy import deploy
from edgeres.deploy.folder import write_folder
from edgeres.deploy.golden import GoldenPair
from edgeres.deploy.repository import check_repository

__all__ = ["GoldenPair", "check_repository", "deploy", "write_folder"]
