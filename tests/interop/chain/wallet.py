"""Bittensor's own wallet library beside ours: `write DIR PASSWORD PHRASE` makes a wallet, `read DIR PASSWORD` reads one.

Prints one JSON object. The packages are those of wallet.txt; tests/tests/foreign.rs runs it.
"""

import json
import sys

from bittensor_wallet import Wallet


def write(path, password, phrase):
    wallet = Wallet(name="theirs", hotkey="h", path=path)
    wallet.regenerate_coldkey(mnemonic=phrase, use_password=True, coldkey_password=password, suppress=True)
    wallet.create_new_hotkey(use_password=False, suppress=True)
    return {"coldkey": wallet.coldkeypub.ss58_address, "hotkey": wallet.hotkey.ss58_address}


def read(path, password):
    wallet = Wallet(name="ours", hotkey="h", path=path)
    coldkey = wallet.get_coldkey(password=password)
    return {
        "coldkey": coldkey.ss58_address,
        "coldkeypub": wallet.coldkeypub.ss58_address,
        "hotkey": wallet.hotkey.ss58_address,
        "hotkeypub": wallet.hotkeypub.ss58_address,
        "signature": wallet.hotkey.sign(b"hello").hex(),
    }


said = {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
# The library says things on its own: what counts is the last line.
print(json.dumps(said))
