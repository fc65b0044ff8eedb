"""Uses a devnet as Bittensor's users do, with their own client. The test `interop` of covey-tests runs it, beside a node
of ours that has committed and set weights there.

    bittensor_client.py use URL COMMITMENT      everything below; COMMITMENT is what hotkey 2 has committed, in hex
    bittensor_client.py open SEALED SIGNATURE   opens what a node locked to a round of the beacon, all in hex
    bittensor_client.py lock ROUND MESSAGE      locks to a round of drand's quicknet, the message in hex

Each check of `use` prints a line; the first that fails ends it.
"""

import asyncio
import os
import struct
import sys
import tempfile
import types

# The client keeps metadata and symbols in the home folder; a test leaves nothing there.
os.environ["HOME"] = tempfile.mkdtemp()

import bittensor_core as core
from bittensor_core import Keypair

OPEN, HIDDEN = 1, 2  # commit-reveal is off in the one, on in the other
HELLO = b"hello"


def wallet(number):
    """Keys as the test makes them: hotkeys from seeds of one byte, coldkeys from a hundred more."""
    cold, hot = (Keypair.create_from_seed(bytes([seed] * 32)) for seed in (100 + number, number))
    return types.SimpleNamespace(name=str(number), coldkey=cold, coldkeypub=cold, hotkey=hot, hotkeypub=hot)


async def check(what, awaitable, holds=lambda value: True):
    value = await awaitable
    text = " ".join(str(value).split())
    assert holds(value), f"{what}: {text}"
    print(f"ok  {what}: {text[:100]}", flush=True)
    return value


def done(result):
    return result.success


async def use(url, commitment):
    import bittensor as bt
    from bittensor._generated import calls
    from bittensor._generated.storage import SubtensorModule as st
    from bittensor.intents.serving import ServeAxon
    from bittensor.intents.staking import AddStake
    from bittensor.intents.transfer import Transfer
    from bittensor.intents.weights import SetWeights

    alice, bob, charlie, dave = (wallet(number) for number in range(4))
    async with bt.Client(url, fallback_endpoints=[], archive_endpoints=[]) as client:
        chain = client._substrate
        await check("block", chain.block_number())
        await check("slot", chain.block_time(), lambda seconds: seconds > 0)
        await check("balance", client.balances.get(alice.coldkey.ss58_address), lambda b: b.rao > 0)
        await check("hyperparameters", client.runtime(("SubnetInfoRuntimeApi", "get_subnet_hyperparams_v2"), [OPEN]))
        graph = await check("metagraph", client.subnets.metagraph(OPEN), lambda g: len(g.neurons) == 3)
        assert graph.neurons[0].hotkey == alice.hotkey.ss58_address

        slot = ("Commitments", "CommitmentOf")
        await check("our commitment", client.query(slot, [OPEN, charlie.hotkey.ss58_address]),
                    lambda slot: commitment in str(slot) or bytes.fromhex(commitment) in str(slot).encode("latin-1"))
        await check("our weights", client.query(st.Weights, [OPEN, 1]),
                    lambda row: [tuple(entry) for entry in row] == [(0, 20_000), (2, 65_535)])

        transfer = Transfer(dest_ss58=dave.coldkey.ss58_address, amount_tao=1.5)
        await check("transfer", client.execute(transfer, alice), done)
        burn = calls.SubtensorModule.burned_register(netuid=OPEN, hotkey=dave.hotkey.ss58_address)
        await check("register", chain.submit(await chain.compose(burn), dave.coldkey), done)
        await check("uid", client.query(st.Uids, [OPEN, dave.hotkey.ss58_address]), lambda uid: uid == 3)
        stake = AddStake(hotkey_ss58=bob.hotkey.ss58_address, netuid=OPEN, amount_tao=2.0)
        call = await stake.build(chain, bob)
        await check("stake", chain.submit(getattr(call, "call", call), bob.coldkey), done)
        commit = calls.Commitments.set_commitment(netuid=OPEN, info={"fields": [{f"Raw{len(HELLO)}": "0x" + HELLO.hex()}]})
        await check("commit", chain.submit(await chain.compose(commit), dave.hotkey), done)
        await check("axon", client.execute(ServeAxon(netuid=OPEN, ip="192.0.2.7", port=8091), dave), done)
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


def open_sealed(sealed, signature):
    """The client wraps what is locked: its length, itself, the round."""
    length = len(sealed)
    compact = struct.pack("<B", length << 2) if length < 64 else struct.pack("<H", length << 2 | 1)
    print(core.decrypt_with_signature(compact + sealed + struct.pack("<Q", 0), signature.hex()).hex())


def lock(round_number, message):
    print(core.inner_ciphertext(core.encrypt_at_round(message, round_number)[0]).hex())


if __name__ == "__main__":
    what, first, second = sys.argv[1:]
    if what == "use":
        asyncio.run(use(first, second))
    elif what == "open":
        open_sealed(bytes.fromhex(first), bytes.fromhex(second))
    else:
        lock(int(first), bytes.fromhex(second))
