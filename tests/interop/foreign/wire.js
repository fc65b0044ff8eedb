// Bytes of docs/protocol.md, as a second implementation reads them: canonical protobuf (section 1), the record of a slot
// (section 4), manifest and announcement (section 12), requests and responses (section 20). No network here.
import { blake3 } from '@noble/hashes/blake3.js'
import { bytesToHex as hex } from '@noble/hashes/utils.js'

export const MANIFEST_BYTES_MAX = 3 * 1024 * 1024 + 4096
export const ANNOUNCEMENT_BYTES_MAX = 512 * 1024
export const RESPONSE_BYTES_MAX = 16 * 1024 * 1024 + 1024
const SHARD_INLINE_MAX = 65_536

/** What a sender is to blame for. */
export class Refused extends Error {}

const refuse = (why) => { throw new Refused(why) }

export const blobName = (bytes) => hex(blake3(bytes))

export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) { whole.set(part, at); at += part.length }
  return whole
}

export function u32(number) {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, number, true)
  return bytes
}

// ---- canonical protobuf: a form is a list of [name, kind], the first one field 1 ------------------------------------
// Kinds: 'uint' (varint, left out if 0), 'bytes' (left out if empty), 'bytes*' (repeated), {form} and {form, repeated}.

function varint(number) {
  const bytes = []
  for (let left = BigInt(number); ; left >>= 7n) {
    if (left < 128n) { bytes.push(Number(left)); return Uint8Array.from(bytes) }
    bytes.push(Number(left & 127n) | 128)
  }
}

const delimited = (field, bytes) => concat(varint((field << 3) | 2), varint(bytes.length), bytes)

export function encode(form, message) {
  const parts = form.flatMap(([name, kind], index) => {
    const value = message[name]
    if (value === undefined) return []
    if (kind === 'uint') return BigInt(value) === 0n ? [] : [varint((index + 1) << 3), varint(value)]
    if (kind === 'bytes') return value.length === 0 ? [] : [delimited(index + 1, value)]
    if (kind === 'bytes*') return value.map((bytes) => delimited(index + 1, bytes))
    const values = kind.repeated ? value : [value]
    return values.map((inner) => delimited(index + 1, encode(kind.form, inner)))
  })
  return concat(...parts)
}

class Reader {
  constructor(bytes) { this.bytes = bytes; this.at = 0 }
  get done() { return this.at === this.bytes.length }
  varint() {
    let number = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.at++] ?? refuse('ends inside a number')
      number |= BigInt(byte & 127) << shift
      if (byte < 128) return BigInt.asUintN(64, number)
    }
    return refuse('a number without end')
  }
  take() {
    const length = Number(this.varint())
    if (length > this.bytes.length - this.at) refuse('a field longer than its message')
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }
}

function read(form, bytes) {
  const message = {}
  for (const [name, kind] of form) message[name] = blank(kind)
  for (const reader = new Reader(bytes); !reader.done;) {
    const tag = Number(reader.varint())
    const [name, kind] = form[(tag >> 3) - 1] ?? refuse(`field ${tag >> 3} is not known`)
    if ((tag & 7) !== (kind === 'uint' ? 0 : 2)) refuse(`${name} is of another type`)
    if (kind === 'uint') message[name] = reader.varint()
    else if (kind === 'bytes') message[name] = reader.take()
    else if (kind === 'bytes*') message[name].push(reader.take())
    else if (kind.repeated) message[name].push(read(kind.form, reader.take()))
    else message[name] = read(kind.form, reader.take())
  }
  return message
}

function blank(kind) {
  if (kind === 'uint') return 0n
  if (kind === 'bytes') return new Uint8Array()
  return kind === 'bytes*' || kind.repeated ? [] : undefined
}

const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at])

/** Decodes, encodes again, and refuses bytes that differ. */
export function decode(form, bytes) {
  const message = read(form, bytes)
  if (!same(encode(form, message), bytes)) refuse('not in canonical form')
  return message
}

// ---- the messages ---------------------------------------------------------------------------------------------------

const BLOB_REF = [['root', 'bytes'], ['size', 'uint']]
const MANIFEST = [
  ['run', 'bytes'], ['round', 'uint'], ['uid', 'uint'], ['hotkey', 'bytes'], ['registered_at', 'uint'], ['base', 'bytes'],
  ['samples', 'uint'], ['codec', 'uint'], ['shards', { form: BLOB_REF, repeated: true }]
]
const ANNOUNCEMENT = [['uid', 'uint'], ['manifest', 'bytes'], ['shards', 'bytes*']]
const U32_MAX = 0xffff_ffffn

function exactly(count, bytes, name) {
  return bytes.length === count ? bytes : refuse(`${name} has ${bytes.length} bytes, not ${count}`)
}

function small(number, name, max = U32_MAX) {
  return number <= max ? Number(number) : refuse(`${name} is ${number}; the most is ${max}`)
}

/** A `CVYMAN01` blob, checked for its form. */
export function readManifest(bytes) {
  if (bytes.length > MANIFEST_BYTES_MAX) refuse(`a manifest of ${bytes.length} bytes; the most is ${MANIFEST_BYTES_MAX}`)
  if (!same(bytes.subarray(0, 8), new TextEncoder().encode('CVYMAN01'))) refuse('no CVYMAN01')
  const wire = decode(MANIFEST, bytes.subarray(8))
  return {
    run: hex(exactly(32, wire.run, 'run')),
    round: small(wire.round, 'round'),
    uid: small(wire.uid, 'uid', 255n),
    hotkey: hex(exactly(32, wire.hotkey, 'hotkey')),
    registeredAt: small(wire.registered_at, 'registered_at'),
    base: hex(exactly(32, wire.base, 'base')),
    samples: small(wire.samples, 'samples'),
    codec: small(wire.codec, 'codec'),
    shards: wire.shards.map(({ root, size }) => ({ root: hex(exactly(32, root, 'root')), size }))
  }
}

/** An announcement whose form is right: canonical, one author, the inline shards exactly those that the manifest names. */
export function readAnnouncement(bytes, inlineMax) {
  if (bytes.length > ANNOUNCEMENT_BYTES_MAX) refuse(`an announcement of ${bytes.length} bytes`)
  const wire = decode(ANNOUNCEMENT, bytes)
  const manifest = readManifest(wire.manifest)
  if (wire.uid !== BigInt(manifest.uid)) refuse(`uid ${wire.uid} announces what uid ${manifest.uid} made`)
  const limit = BigInt(Math.min(inlineMax, SHARD_INLINE_MAX))
  const inline = manifest.shards.filter(({ size }) => size <= limit)
  if (inline.length !== wire.shards.length) refuse(`${wire.shards.length} shards came along, not ${inline.length}`)
  inline.forEach(({ root, size }, index) => {
    const shard = wire.shards[index]
    if (BigInt(shard.length) !== size || blobName(shard) !== root) refuse(`inline shard ${index} is another blob`)
  })
  return { digest: blobName(wire.manifest), manifest, inline: inline.length, apart: manifest.shards.filter(({ size }) => size > limit) }
}

/** The contribution in the bytes of a slot, or nothing if they are no record of this run with one. */
export function readRecord(bytes, run) {
  const kinds = bytes[1] & 15
  if (bytes[0] !== 0xc5 || bytes[1] >> 4 !== 1 || kinds === 0 || kinds > 3) return undefined
  if (bytes.length !== 10 + (kinds & 1 ? 36 : 0) + (kinds & 2 ? 68 : 0)) return undefined
  if (hex(bytes.subarray(2, 10)) !== run.slice(0, 16) || !(kinds & 1)) return undefined
  const round = new DataView(bytes.buffer, bytes.byteOffset).getUint32(10, true)
  return { round, digest: hex(bytes.subarray(14, 46)) }
}

// ---- requests -------------------------------------------------------------------------------------------------------

const REQUEST = [
  ['blob', { form: [['root', 'bytes']] }],
  ['announcements', { form: [['round', 'uint'], ['have', 'bytes']] }]
]
// `blob` is a member of a oneof: written even if empty, so it is read as a list and must have one entry.
const RESPONSE = [
  ['nothing', { form: [] }],
  ['blob', 'bytes*'],
  ['announcements', { form: [['announcement', 'bytes*']] }],
  ['record', { form: [['record', 'bytes'], ['signature', 'bytes']] }]
]

export const askBlob = (root) => encode(REQUEST, { blob: { root } })
export const askRound = (round) => encode(REQUEST, { announcements: { round, have: new Uint8Array(32) } })

/** A response: exactly one of `nothing`, `blob`, `announcements`, `record`. */
export function readResponse(bytes) {
  const wire = decode(RESPONSE, bytes)
  const given = Object.entries(wire).filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0))
  if (given.length !== 1 || wire.blob.length > 1) refuse('a response says one thing')
  const [kind] = given[0]
  if (kind === 'announcements') return { kind, announcements: wire.announcements.announcement }
  return kind === 'blob' ? { kind, blob: wire.blob[0] } : { kind }
}

// ---- identify: libp2p's message, whose fields come in any order and grow with time ------------------------------------

const IDENTIFY = [
  ['publicKey', 'bytes'], ['listenAddrs', 'bytes*'], ['protocols', 'bytes*'], ['observedAddr', 'bytes'],
  ['protocolVersion', 'bytes'], ['agentVersion', 'bytes'], ['7', 'bytes'], ['signedPeerRecord', 'bytes']
]

export function readIdentify(bytes) {
  const { protocolVersion, agentVersion } = read(IDENTIFY, bytes)
  const text = new TextDecoder()
  return { protocolVersion: text.decode(protocolVersion), agentVersion: text.decode(agentVersion) }
}
