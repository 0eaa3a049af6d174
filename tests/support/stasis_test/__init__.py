# SPDX-License-Identifier: Apache-2.0
"""What the python test runners share. Standard library only, besides Debian's rpc_pb2."""
