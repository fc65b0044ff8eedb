// Uses a devnet through polkadot-js, as explorers and wallets do. The test `interop` of covey-tests runs it, beside a node
// of ours that has committed: `node polkadot_client.js URL COMMITMENT`, what hotkey 2 has committed in hex. Each check
// prints a line; the first that fails ends it.

import { ApiPromise, Keyring, WsProvider } from '@polkadot/api';
import { cryptoWaitReady } from '@polkadot/util-crypto';

const [url, commitment] = process.argv.slice(2);
const NETUID = 1;

function check(what, holds, value) {
  if (!holds) throw new Error(`${what}: ${value}`);
  console.log(`ok  ${what}: ${String(value).slice(0, 100)}`);
}

// Sends a call and waits until it is final; its events, and the name of the error if it failed.
function send(api, call, pair) {
  return new Promise((resolve, reject) => {
    call.signAndSend(pair, { nonce: -1 }, ({ status, events, dispatchError }) => {
      if (status.isInvalid || status.isDropped || status.isUsurped) reject(new Error(`it is ${status.type}`));
      if (!status.isFinalized) return;
      const names = events.map(({ event }) => `${event.section}.${event.method}`);
      const error = dispatchError?.isModule ? api.registry.findMetaError(dispatchError.asModule) : undefined;
      resolve({ names, error: error && `${error.section}.${error.name}` });
    }).catch(reject);
  });
}

await cryptoWaitReady();
const api = await ApiPromise.create({ provider: new WsProvider(url), noInitWarn: true, throwOnConnect: true });
const keys = new Keyring({ type: 'sr25519', ss58Format: 42 });
const pair = (seed) => keys.addFromSeed(new Uint8Array(32).fill(seed));
const [cold, hot, stranger] = [pair(100), pair(0), pair(77)];

check('runtime', api.runtimeVersion.specName.toString() === 'node-subtensor', api.runtimeVersion.specName);
const funds = (await api.query.system.account(cold.address)).data.free;
check('balance', funds.gtn(0), funds);
const theirs = await api.query.commitments.commitmentOf(NETUID, pair(2).address);
check('our commitment', JSON.stringify(theirs.toJSON()).includes(commitment), JSON.stringify(theirs.toJSON()));

let seen = 0;
const stop = await api.rpc.chain.subscribeNewHeads(() => { seen += 1; });
const data = '0x' + Buffer.from('polkadot').toString('hex');
const info = { fields: [{ Raw8: data }] };
const sent = await send(api, api.tx.commitments.setCommitment(NETUID, info), hot);
check('commit', !sent.error && sent.names.includes('commitments.Commitment'), sent.names);
const slot = (await api.query.commitments.commitmentOf(NETUID, hot.address)).toJSON();
check('commitment', JSON.stringify(slot).includes(data.slice(2)), JSON.stringify(slot));
check('heads', seen > 0, seen);
stop();

const refused = await send(api, api.tx.commitments.setCommitment(NETUID, info), stranger);
check('error', refused.error === 'commitments.AccountNotAllowedCommit', refused.error);
const moved = await send(api, api.tx.balances.transferKeepAlive(stranger.address, 1_000_000_000), cold);
check('transfer', !moved.error && moved.names.includes('balances.Transfer'), moved.names);
const fee = (await api.tx.balances.transferKeepAlive(stranger.address, 1).paymentInfo(cold)).partialFee;
check('fee', fee.gtn(0), fee);
const early = await api.tx.subtensorModule.setWeights(NETUID, [0], [1], 0).signAndSend(stranger).then(() => 'taken', String);
check('refusal', early.includes('Custom error: 19'), early);
await api.disconnect();
