"""Uses a devnet through py-substrate-interface, as older tools do. Run by hand: its module has the name of another's, so
it needs an environment of its own.

    python3 -m venv target/interop/substrate-interface
    target/interop/substrate-interface/bin/pip install substrate-interface==1.8.1
    covey devnet --listen 127.0.0.1:9944 --block-time 250
    target/interop/substrate-interface/bin/python tests/interop/chain/substrate_interface_client.py ws://127.0.0.1:9944
"""

import sys

from substrateinterface import Keypair, SubstrateInterface

NETUID = 2


def check(what, holds, value):
    assert holds, f"{what}: {value}"
    print(f"ok  {what}: {str(value)[:100]}", flush=True)


chain = SubstrateInterface(url=sys.argv[1], ss58_format=42, type_registry={"types": {"Balance": "u64"}})
cold, hot = Keypair.create_from_uri("//Alice"), Keypair.create_from_uri("//Alice//hotkey")
check("chain", chain.chain == "Covey Devnet", chain.chain)
check("head", chain.get_chain_head().startswith("0x"), chain.get_chain_head())
account = chain.query("System", "Account", [cold.ss58_address])
check("balance", account.value["data"]["free"] > 0, account.value)
info = {"fields": [[{"Raw5": "0x" + b"hello".hex()}]]}
call = chain.compose_call("Commitments", "set_commitment", {"netuid": NETUID, "info": info})
receipt = chain.submit_extrinsic(chain.create_signed_extrinsic(call, hot), wait_for_inclusion=True)
check("commit", receipt.is_success, receipt.error_message)
slot = chain.query("Commitments", "CommitmentOf", [NETUID, hot.ss58_address])
check("commitment", "hello" in str(slot.value) or "68656c6c6f" in str(slot.value), slot.value)
call = chain.compose_call("Commitments", "set_commitment", {"netuid": 9, "info": info})
receipt = chain.submit_extrinsic(chain.create_signed_extrinsic(call, hot), wait_for_inclusion=True)
check("error", receipt.error_message["name"] == "AccountNotAllowedCommit", receipt.error_message)
members = list(chain.query_map("SubtensorModule", "Keys", [NETUID]))
check("members", len(members) == 3, len(members))
