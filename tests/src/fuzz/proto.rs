//! The decoders of `covey-proto`: what peers and the chain send.

use super::take;
use covey::preset::PRESETS;
use covey_proto::blob::{
    self, BlobRef, HEADER_BYTES_MAX, Header, LIST_BYTES_MAX, MANIFEST, Manifest, PEER, STATE, StateManifest,
};
use covey_proto::message::{
    ANNOUNCEMENT_BYTES_MAX, Announcement, PEER_RECORD_BYTES_MAX, PeerRecord, RESPONSE_BYTES_MAX, Request, Response,
    SignedPeerRecord,
};
use covey_proto::pieces::{GROUP_BYTES, PIECES_MAX, PieceSet, Pieces};
use covey_proto::record::{Contribution, Record, UidSet, Vote};
use covey_proto::run::{INLINE_MAX, Run};
use covey_proto::{BlockNumber, Digest, HotkeyPair, Round, RunId, Uid, wire};

fn digest(number: u8) -> Digest {
    Digest::of(&[number])
}

fn key() -> HotkeyPair {
    HotkeyPair::from_seed([7; 32])
}

// ---- blobs ----------------------------------------------------------------------------------------------------------

pub(super) fn manifest(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::from_bytes(data) else { return false };
    assert_eq!(manifest.to_bytes(), data);
    assert_eq!(manifest.digest(), Digest::of(data));
    true
}

fn a_manifest(shards: &[Vec<u8>]) -> Manifest {
    Manifest {
        run: RunId(digest(1)),
        round: Round(300),
        uid: Uid::from(200),
        hotkey: key().hotkey(),
        registered_at: 77,
        base: digest(2),
        samples: 640,
        codec: 1,
        shards: shards.iter().map(|shard| BlobRef::of(shard)).collect(),
    }
}

fn shards() -> Vec<Vec<u8>> {
    vec![vec![1; 300], vec![], vec![2; 5000]]
}

pub(super) fn manifests() -> Vec<Vec<u8>> {
    vec![a_manifest(&shards()).to_bytes(), a_manifest(&[]).to_bytes()]
}

pub(super) fn header(data: &[u8]) -> bool {
    let Ok(header) = Header::from_bytes(data) else { return false };
    assert_eq!(header.to_bytes(), data);
    assert!(header.selected.is_sorted_by(|before, after| before.0 < after.0));
    true
}

pub(super) fn headers() -> Vec<Vec<u8>> {
    let header = |selected: &[u8]| Header {
        run: RunId(digest(1)),
        round: Round(0),
        parent: digest(2),
        hash_a: digest(3),
        hash_c: digest(4),
        hash_v: digest(5),
        selected: selected.iter().map(|uid| (Uid::from(*uid), digest(*uid))).collect(),
        state: digest(6),
    };
    vec![header(&[]).to_bytes(), header(&[0, 5, 255]).to_bytes()]
}

/// The first eight bytes say of what state: elements, and elements of a shard.
pub(super) fn state_manifest(mut data: &[u8]) -> bool {
    let [elements, shard] = [take(&mut data), take(&mut data)].map(|bytes| u32::from_le_bytes(bytes) as usize);
    let Ok(state) = StateManifest::from_bytes(data, elements, shard) else { return false };
    assert_eq!(state.to_bytes(), data);
    assert_eq!(state.shards.iter().map(|shard| shard.size).sum::<u64>(), 4 * elements as u64);
    assert!(state.shards.iter().all(|named| named.size > 0 && named.size <= 4 * shard as u64));
    true
}

pub(super) fn state_manifests() -> Vec<Vec<u8>> {
    let state = |elements: u32, shard: u32| {
        let whole = vec![0; 4 * shard as usize];
        let last = vec![0; 4 * (elements % shard) as usize];
        let shards = (0..elements / shard).map(|_| BlobRef::of(&whole)).chain([BlobRef::of(&last)]).collect();
        let manifest = StateManifest { elements: elements.into(), shards };
        [elements.to_le_bytes().to_vec(), shard.to_le_bytes().to_vec(), manifest.to_bytes()].concat()
    };
    vec![state(2500, 1024), state(10, 1024)]
}

// ---- the run --------------------------------------------------------------------------------------------------------

pub(super) fn run(data: &[u8]) -> bool {
    let Ok(run) = Run::from_bytes(data) else { return false };
    assert_eq!(run.to_bytes(), data);
    assert_eq!(run.id().0, Digest::of(data));
    let elements = run.layout().elements();
    assert!(elements > 0 && elements as u64 <= 100_000_000_000, "{elements} elements");
    same_as_toml(&run);
    true
}

/// A run has a text, unless a number is above what TOML knows, and the text is that run's.
fn same_as_toml(run: &Run) {
    let alone =
        [run.model.seed.unwrap_or(0), run.electorate.stake_min, run.electorate.electorate_min, run.data.samples];
    let mut largest = alone.into_iter().chain(run.phases.iter().map(|phase| phase.samples));
    if largest.all(|number| i64::try_from(number).is_ok()) {
        let text = run.to_toml();
        assert_eq!(Run::from_toml(&text).map(|again| again.to_bytes()).ok(), Some(run.to_bytes()), "{text}");
    }
}

fn preset_toml(preset: &str) -> String {
    let zero = "0".repeat(64);
    format!(
        "[chain]\ngenesis = \"{zero}\"\nnetuid = 3\nstart = 1000\ngenesis_state = \"{zero}\"\n\n[data]\ndigest = \"{zero}\"\nsamples = 1000000\n\n{preset}"
    )
}

pub(super) fn runs() -> Vec<Vec<u8>> {
    run_tomls().iter().filter_map(|text| Some(Run::from_toml(str::from_utf8(text).ok()?).ok()?.to_bytes())).collect()
}

pub(super) fn run_toml(data: &[u8]) -> bool {
    let Some(run) = std::str::from_utf8(data).ok().and_then(|text| Run::from_toml(text).ok()) else { return false };
    assert_eq!(Run::from_bytes(&run.to_bytes()).map(|again| again.id()).ok(), Some(run.id()));
    same_as_toml(&run);
    true
}

pub(super) fn run_tomls() -> Vec<Vec<u8>> {
    PRESETS.iter().map(|(_, preset, _)| preset_toml(preset).into_bytes()).collect()
}

// ---- the chain's slot -----------------------------------------------------------------------------------------------

pub(super) fn record(data: &[u8]) -> bool {
    let Ok(record) = Record::from_bytes(data) else { return false };
    assert_eq!(record.to_bytes(), data);
    assert!([46, 78, 114].contains(&data.len()));
    true
}

pub(super) fn records() -> Vec<Vec<u8>> {
    let contribution = Some(Contribution { round: Round(300), manifest: digest(1) });
    let ballot: UidSet = [0, 9, 255].map(Uid::from).into_iter().collect();
    let vote = Some(Vote { round: Round(299), head: digest(2), ballot });
    let record = |contribution, vote| Record { run: digest(3).prefix(), contribution, vote }.to_bytes();
    vec![record(contribution, None), record(None, vote), record(contribution, vote)]
}

// ---- messages -------------------------------------------------------------------------------------------------------

pub(super) fn announcement(data: &[u8]) -> bool {
    let mut accepted = false;
    for inline_max in [0, 4096, u32::MAX] {
        let Ok(announcement) = Announcement::from_bytes(data, inline_max) else { continue };
        accepted = true;
        assert_eq!(announcement.to_bytes(), data);
        // A limit above the largest shard that may come along is that one.
        let limit = u64::from(inline_max.min(INLINE_MAX));
        let named = announcement.manifest.shards.iter().filter(|shard| shard.size <= limit).copied();
        assert!(named.eq(announcement.inline.iter().map(|shard| BlobRef::of(shard))));
    }
    accepted
}

pub(super) fn announcements() -> Vec<Vec<u8>> {
    let shards = shards();
    let announced = |inline_max| {
        let inline = shards.iter().filter(|shard| shard.len() <= inline_max).cloned().collect();
        Announcement { manifest: a_manifest(&shards), inline }.to_bytes()
    };
    vec![announced(0), announced(4096), announced(65_536)]
}

/// The bytes are a record; the signature is made here, by the key whose record the corpus has.
pub(super) fn peer_record(data: &[u8]) -> bool {
    let text = format!("<Bytes>covey/1/peer:{}</Bytes>", Digest::of(data));
    let signature = key().sign(text.as_bytes()).to_vec();
    let wire = wire::SignedPeerRecord { record: data.to_vec(), signature };
    let Ok(signed) = SignedPeerRecord::from_wire(&wire) else { return false };
    assert_eq!(signed.record().to_bytes(), data);
    assert!(signed.record().addresses.len() <= 8 && signed.record().peer.len() <= 64);
    assert_eq!(signed.record().hotkey, key().hotkey());
    true
}

fn a_peer_record(addresses: usize) -> PeerRecord {
    PeerRecord {
        genesis: digest(1),
        netuid: 3,
        uid: Uid::from(9),
        hotkey: key().hotkey(),
        registered_at: BlockNumber(1),
        peer: vec![0, 36, 8, 1],
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned(); addresses],
        sequence: 1_700_000_000_000,
        expiry: BlockNumber(9000),
    }
}

pub(super) fn peer_records() -> Vec<Vec<u8>> {
    vec![a_peer_record(0).to_bytes(), a_peer_record(8).to_bytes()]
}

pub(super) fn request(data: &[u8]) -> bool {
    let Ok(request) = Request::from_bytes(data) else { return false };
    assert_eq!(request.to_bytes(), data);
    true
}

fn signed() -> SignedPeerRecord {
    a_peer_record(1).sign(&key())
}

pub(super) fn requests() -> Vec<Vec<u8>> {
    let have: UidSet = [Uid::from(4)].into_iter().collect();
    let requests = [Request::Blob(digest(1)), Request::Announcements(Round(300), have)];
    requests.into_iter().chain([Request::Record(signed())]).map(|request| request.to_bytes()).collect()
}

pub(super) fn response(data: &[u8]) -> bool {
    let Ok(response) = Response::from_bytes(data) else { return false };
    assert_eq!(response.to_bytes(), data);
    true
}

pub(super) fn responses() -> Vec<Vec<u8>> {
    let list = Response::Announcements(vec![vec![1; 20], vec![], vec![2; 200]]);
    let responses = [Response::Nothing, Response::Blob(vec![7; 300]), Response::Blob(vec![]), list];
    responses.into_iter().chain([Response::Record(signed())]).map(|response| response.to_bytes()).collect()
}

// ---- lists of next to nothing ---------------------------------------------------------------------------------------

/// `head`, then field `tag` with this content for as long as there is room.
fn repeated(head: &[u8], tag: u8, content: &[u8], bytes_max: usize) -> Vec<u8> {
    let entry = [&[tag << 3 | 2, content.len() as u8], content].concat();
    let times = (bytes_max - head.len()) / entry.len();
    [head.to_vec(), entry.repeat(times)].concat()
}

pub(super) fn longest_lists() -> Vec<(&'static str, Vec<u8>)> {
    // As long as a digest's field, and nothing in it: the field is there 17 times, empty.
    let hollow = [10, 0].repeat(17);
    let mut lists = vec![("peer_record", repeated(PEER, 7, &[], PEER_RECORD_BYTES_MAX))];
    for content in [&[], hollow.as_slice()] {
        let manifest = repeated(MANIFEST, 9, content, LIST_BYTES_MAX);
        lists.push(("announcement", repeated(&[], 3, content, ANNOUNCEMENT_BYTES_MAX)));
        // In the announcement's manifest: the limit of gossip is the smaller.
        let inner = &manifest[..ANNOUNCEMENT_BYTES_MAX - 8];
        let length = inner.len();
        let length = [length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8];
        lists.push(("announcement", [&[18], length.as_slice(), inner].concat()));
        lists.push(("manifest", manifest));
        lists.push(("header", repeated(blob::HEADER, 7, content, HEADER_BYTES_MAX)));
        lists.push(("state_manifest", [&[0; 8], repeated(STATE, 2, content, LIST_BYTES_MAX).as_slice()].concat()));
        for tag in [26, 42] {
            // Four bytes of length: 16 MiB less a little.
            let list = repeated(&[], 1, content, RESPONSE_BYTES_MAX - 5);
            let length = [0, 7, 14].map(|shift| (list.len() >> shift) as u8 | 0x80);
            let response = [&[tag], length.as_slice(), &[(list.len() >> 21) as u8], &list].concat();
            lists.push(("get_stream", [(response.len() as u32).to_le_bytes().as_slice(), &response].concat()));
            lists.push(("response", response));
        }
    }
    lists
}

// ---- pieces ---------------------------------------------------------------------------------------------------------

/// Eight bytes are a blob's size, the rest a set of its pieces.
pub(super) fn piece_set(mut data: &[u8]) -> bool {
    let size = u64::from_le_bytes(take(&mut data));
    let Some(pieces) = Pieces::of(size) else { return false };
    assert!(u64::from(pieces.count()) <= PIECES_MAX);
    for piece in [0, pieces.count() / 2, pieces.count() - 1, u32::MAX] {
        let groups = pieces.groups_of(piece);
        assert_eq!(groups.is_empty(), piece >= pieces.count());
        assert!(pieces.bytes_of_piece(piece).end <= size && groups.end - groups.start <= 64);
        let payload = pieces.bytes_of(groups.clone());
        let answer = pieces.answer_bytes(groups);
        assert!(answer >= payload.end - payload.start && answer <= 65 * (GROUP_BYTES + 64) + 64 * 64);
    }
    let Some(set) = PieceSet::from_bytes(data, pieces.count()) else { return false };
    assert_eq!(set.as_bytes(), data);
    assert_eq!(set.iter().count(), set.len() as usize);
    let runs = set.runs();
    assert!(runs.is_sorted_by(|before, after| before.end < after.start));
    assert!(runs.iter().all(|run| run.start < run.end && run.end <= pieces.count()));
    let mut again = PieceSet::none(pieces.count());
    runs.into_iter().for_each(|run| again.insert_range(run));
    assert_eq!(again, set);
    true
}

pub(super) fn piece_sets() -> Vec<Vec<u8>> {
    let set = |size: u64, bytes: &[u8]| [size.to_le_bytes().as_slice(), bytes].concat();
    vec![set(0, &[1]), set(13 << 20, &[0xab, 0x15]), set(17 << 30, &[0x5a; 544])]
}
