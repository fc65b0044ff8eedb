"""Uses a devnet as Bittensor's users do, with their own client: `python bittensor_client.py ws://127.0.0.1:9944`.

Needs the Python package `bittensor` 11 in an environment of its own, and a devnet as `cargo run -p covey-devnet
--example devnet -- 127.0.0.1:9944 "" 250` runs it. Each check prints a line; the first that fails ends it.
"""

import asyncio
import os
import sys
import tempfile
import types

# The client keeps metadata and symbols in the home folder; a test leaves nothing there.
os.environ["HOME"] = tempfile.mkdtemp()

import bittensor as bt
from bittensor._generated import calls
from bittensor._generated.storage import SubtensorModule as st
from bittensor.intents.serving import ServeAxon
from bittensor.intents.staking import AddStake
from bittensor.intents.transfer import Transfer
from bittensor.intents.weights import SetWeights
from bittensor_core import Keypair

HIDDEN, OPEN = 1, 2  # commit-reveal is on in the one, off in the other


def wallet(name):
    cold, hot = Keypair.create_from_uri(f"//{name}"), Keypair.create_from_uri(f"//{name}//hotkey")
    return types.SimpleNamespace(name=name, coldkey=cold, coldkeypub=cold, hotkey=hot, hotkeypub=hot)


async def check(what, awaitable, holds=lambda value: True):
    value = await awaitable
    text = " ".join(str(value).split())
    assert holds(value), f"{what}: {text}"
    print(f"ok  {what}: {text[:120]}", flush=True)
    return value


def done(result):
    return result.success


async def main(url):
    alice, bob, dave = wallet("Alice"), wallet("Bob"), wallet("Dave")
    async with bt.Client(url, fallback_endpoints=[], archive_endpoints=[]) as client:
        chain = client._substrate
        await check("block", chain.block_number())
        await check("slot", chain.block_time(), lambda seconds: seconds > 0)
        await check("balance", client.balances.get(alice.coldkey.ss58_address), lambda b: b.rao > 0)
        await check("hyperparameters", client.runtime(("SubnetInfoRuntimeApi", "get_subnet_hyperparams_v2"), [OPEN]))
        graph = await check("metagraph", client.subnets.metagraph(OPEN), lambda g: len(g.neurons) >= 3)
        assert graph.neurons[0].hotkey == alice.hotkey.ss58_address

        transfer = Transfer(dest_ss58=dave.coldkey.ss58_address, amount_tao=1.5)
        await check("transfer", client.execute(transfer, alice), done)
        burn = calls.SubtensorModule.burned_register(netuid=OPEN, hotkey=dave.hotkey.ss58_address)
        await check("register", chain.submit(await chain.compose(burn), dave.coldkey), done)
        await check("uid", client.query(st.Uids, [OPEN, dave.hotkey.ss58_address]), lambda uid: uid is not None)
        stake = AddStake(hotkey_ss58=bob.hotkey.ss58_address, netuid=OPEN, amount_tao=2.0)
        call = (await stake.build(chain, bob)) if hasattr(stake, "build") else None
        await check("stake", chain.submit(getattr(call, "call", call), bob.coldkey), done)

        commit = calls.Commitments.set_commitment(netuid=OPEN, info={"fields": [{"Raw5": "0x" + b"hello".hex()}]})
        await check("commit", chain.submit(await chain.compose(commit), dave.hotkey), done)
        again = await client.subnets.metagraph(OPEN)
        await check("commitment", client.query(("Commitments", "CommitmentOf"), [OPEN, dave.hotkey.ss58_address]),
                    lambda slot: "68656c6c6f" in str(slot) or "hello" in str(slot))
        assert dave.hotkey.ss58_address in [neuron.hotkey for neuron in again.neurons]

        await check("axon", client.execute(ServeAxon(netuid=OPEN, ip="192.0.2.7", port=8091), bob), done)
        await check("weights", client.execute(SetWeights(netuid=OPEN, weights={0: 1.0, 2: 0.5}), alice), done)
        await check("row", client.query(st.Weights, [OPEN, 0]), lambda row: len(row) == 2)
        await check("hidden weights", client.execute(SetWeights(netuid=HIDDEN, weights={1: 1.0}), alice), done)
        pending = await client.query_map(st.TimelockedWeightCommits, [HIDDEN])
        assert pending, "no hidden weights wait"
        try:
            refused = await client.execute(SetWeights(netuid=OPEN, weights={1: 1.0}), dave)
            assert not refused.success, "who has no permit has set weights"
            print(f"ok  refused: {' '.join(str(refused.message).split())[:100]}")
        except bt.BittensorError as error:
            print(f"ok  refused: {' '.join(str(error).split())[:100]}")
    print("1 passed, 0 failed")


asyncio.run(main(sys.argv[1]))
