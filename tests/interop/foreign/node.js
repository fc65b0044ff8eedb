// A node that shares no line with Covey, written from docs/protocol.md: it listens to a run's announcements, holds one
// against what its author committed on chain, asks for the shards that did not come along, and checks their names.
//
//   node node.js --address MULTIADDR --run HEX --round N --inline-max BYTES --uid N --hotkey HEX --registered-at N --slot HEX
//
// Address: a Covey node, with /p2p/ID. Uid, hotkey, registered-at and slot are what the chain shows of one member at the
// round's block C, the slot being the bytes that it committed last. Prints one line of JSON; exits 0 if all was right, 1 if not.
import { parseArgs } from 'node:util'
import { gossipsub, StrictNoSign } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { byteStream, lpStream } from '@libp2p/utils'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { blake3 } from '@noble/hashes/blake3.js'
import { hexToBytes } from '@noble/hashes/utils.js'
import { createLibp2p } from 'libp2p'
import * as wire from './wire.js'

const PATIENCE_MS = 30_000
const text = new TextEncoder()

function commandLine() {
  const names = ['address', 'run', 'round', 'inline-max', 'uid', 'hotkey', 'registered-at', 'slot']
  const { values } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: 'string' }])) })
  for (const name of names) if (values[name] === undefined) throw new Error(`--${name} is missing`)
  return {
    address: multiaddr(values.address), run: values.run, round: Number(values.round), inlineMax: Number(values['inline-max']),
    uid: Number(values.uid), hotkey: values.hotkey, registeredAt: Number(values['registered-at']), slot: hexToBytes(values.slot)
  }
}

/** The first 20 bytes of BLAKE3(u32(length of topic) ‖ topic ‖ data). */
function messageId({ topic, data }) {
  const name = text.encode(topic)
  return blake3(wire.concat(wire.u32(name.length), name, data)).slice(0, 20)
}

const startNode = () => createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    gossip: gossipsub({ globalSignaturePolicy: StrictNoSign, msgIdFn: messageId, allowPublishToZeroTopicPeers: true })
  }
})

/** The first message of the topic. Nothing is passed on before it is judged, and this node judges none: it ignores. */
function firstMessage(gossip, topic) {
  return new Promise((resolve) => {
    gossip.topicValidators.set(topic, (_peer, message) => { resolve(message.data); return 'ignore' })
    gossip.subscribe(topic)
  })
}

/** One request and its response on a stream of `/covey/1/get`: u32 length and so many bytes, each way. */
async function ask(connection, request) {
  const stream = await connection.newStream('/covey/1/get')
  const bytes = byteStream(stream, { maxBufferSize: 4 + wire.RESPONSE_BYTES_MAX })
  await bytes.write(wire.concat(wire.u32(request.length), request))
  const head = (await bytes.read({ bytes: 4 })).subarray()
  const length = new DataView(head.buffer, head.byteOffset).getUint32(0, true)
  if (length > wire.RESPONSE_BYTES_MAX) throw new wire.Refused(`a response of ${length} bytes`)
  const response = (await bytes.read({ bytes: length })).subarray()
  await stream.close()
  return wire.readResponse(response)
}

/** What the peer says of itself by `/ipfs/id/1.0.0`. By hand: js-libp2p refuses the envelope of its signed peer record. */
async function identity(connection) {
  const stream = await connection.newStream('/ipfs/id/1.0.0')
  const message = (await lpStream(stream).read()).subarray()
  await stream.close()
  return wire.readIdentify(message)
}

/** What the chain says decides: the slot's digest, the round, and the member that owns the slot. */
function judge(bytes, chain) {
  const announced = wire.readAnnouncement(bytes, chain.inlineMax)
  const { digest, manifest } = announced
  const committed = wire.readRecord(chain.slot, chain.run)
  const wrong = (what) => { throw new wire.Refused(what) }
  if (committed === undefined || committed.round !== chain.round) wrong(`uid ${chain.uid} offered nothing in round ${chain.round}`)
  if (manifest.run !== chain.run) wrong('announced for another run')
  if (manifest.round !== chain.round) wrong(`announced for round ${manifest.round}`)
  if (manifest.uid !== chain.uid) wrong(`announced for uid ${manifest.uid}`)
  if (digest !== committed.digest) wrong(`announced ${digest}, committed ${committed.digest}`)
  if (manifest.hotkey !== chain.hotkey || manifest.registeredAt !== chain.registeredAt) wrong("the manifest is not of the slot's owner")
  return announced
}

async function fetchBlob(connection, { root, size }) {
  const answer = await ask(connection, wire.askBlob(hexToBytes(root)))
  if (answer.kind !== 'blob') throw new Error(`${root}: the answer is ${answer.kind}`)
  if (wire.blobName(answer.blob) !== root) throw new wire.Refused(`${root}: wrong bytes`)
  if (size !== undefined && BigInt(answer.blob.length) !== size) throw new Error(`${root}: ${answer.blob.length} bytes, not ${size}`)
  return answer.blob
}

async function run(chain) {
  const node = await startNode()
  const announcement = firstMessage(node.services.gossip, `/covey/1/${chain.run}/gradients`)
  const connection = await node.dial(chain.address)
  const bytes = await announcement
  const { digest, manifest, inline, apart } = judge(bytes, chain)
  for (const shard of apart) await fetchBlob(connection, shard)
  // A peer that keeps the round for others gives the same bytes, and the manifest is a blob like any other.
  const pulled = await ask(connection, wire.askRound(chain.round))
  const kept = pulled.kind === 'announcements' && pulled.announcements.some((other) => Buffer.compare(other, bytes) === 0)
  await fetchBlob(connection, { root: digest })
  const absent = await ask(connection, wire.askBlob(blake3(text.encode('nobody has this'))))
  return {
    ok: true, manifest: digest, uid: manifest.uid, round: manifest.round, inline, fetched: apart.map(({ root }) => root), kept,
    absent: absent.kind, gossip: node.services.gossip.streamsOutbound.get(connection.remotePeer.toString())?.protocol,
    ...await identity(connection)
  }
}

const patience = new Promise((_resolve, reject) => {
  setTimeout(() => reject(new Error(`not done after ${PATIENCE_MS} ms`)), PATIENCE_MS)
})
let result
try {
  result = await Promise.race([run(commandLine()), patience])
} catch (error) {
  result = { ok: false, refused: error instanceof wire.Refused, why: error.message }
}
console.log(JSON.stringify(result))
process.exit(result.ok ? 0 : 1)
