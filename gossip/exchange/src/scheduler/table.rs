//! One blob's pieces: which are held, begun, asked, how rare the others are, and which of them to ask next.
//!
//! A piece is *fresh* (nothing of it asked or got), *begun*, or held. Fresh pieces lie in [`LEVELS`] sets by how many
//! peers with only a part of the blob hold them; peers that hold all of it are a mere count, so that a seed's BITFIELD
//! costs nothing. Begun pieces with groups that nobody is asked for come first, then the rarest fresh ones, ties by lot.
//! Nothing here scans the pieces one by one. Taking in a peer's partial set, or letting it go, costs some twenty steps for
//! each 64 of them: 20 µs for 70,000.

use super::bits::{Bits, Counts};
use super::known::{Known, word_of};
use covey_proto::pieces::{GROUP_BYTES, PieceSet, Pieces};
use std::collections::BTreeMap;
use std::ops::Range;

/// Levels of rarity that are told apart: where seven others hold a piece, it is no longer rare.
const LEVELS: usize = 8;

/// A piece of which something is asked or got. Bit i of a mask is the piece's group i.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    got: u64,
    /// Asked of one peer or two, and not got.
    asked: u64,
    /// Asked of two; a part of `asked`.
    twice: u64,
}

/// What a group was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// Of a piece that is not complete yet.
    New,
    /// The last of its piece.
    Piece,
    /// Here already.
    Again,
}

/// The pieces of one blob.
#[derive(Debug)]
pub(super) struct Table {
    pieces: Pieces,
    held: PieceSet,
    /// How many partial holders each piece has.
    spread: Counts,
    seeds: u32,
    fresh: Vec<Bits>,
    /// Begun pieces of which some groups are neither got nor asked.
    waiting: Bits,
    begun: BTreeMap<u32, Begun>,
    got_bytes: u64,
    twice_bytes: u64,
}

impl Table {
    /// A table of a blob of which `held` is here.
    pub(super) fn new(pieces: Pieces, held: PieceSet) -> Table {
        let count = pieces.count();
        let held = if held.count() == count { held } else { PieceSet::none(count) };
        let mut fresh = vec![Bits::none(count); LEVELS];
        let last = pieces.bytes_of_piece(count - 1);
        let short = pieces.piece_bytes() - (last.end - last.start);
        let got_bytes = u64::from(held.len()) * pieces.piece_bytes() - if held.contains(count - 1) { short } else { 0 };
        for word in 0..(count as usize).div_ceil(64) {
            fresh[0].put(word, !word_of(&held, word) & ones(count - word as u32 * 64));
        }
        let (spread, waiting) = (Counts::zero(count), Bits::none(count));
        Table { pieces, held, spread, seeds: 0, fresh, waiting, begun: BTreeMap::new(), got_bytes, twice_bytes: 0 }
    }

    pub(super) fn pieces(&self) -> Pieces {
        self.pieces
    }

    pub(super) fn held(&self) -> &PieceSet {
        &self.held
    }

    /// Bytes got, those of begun pieces too.
    pub(super) fn got_bytes(&self) -> u64 {
        self.got_bytes
    }

    /// Bytes that are asked of two peers now.
    pub(super) fn twice_bytes(&self) -> u64 {
        self.twice_bytes
    }

    // ---- who holds what -------------------------------------------------------------------------------------------

    /// A peer with these pieces counts from now on.
    pub(super) fn gain(&mut self, known: &Known) {
        match known {
            Known::Nothing => {}
            Known::All => self.seeds += 1,
            Known::Some(_) => self.words().for_each(|word| self.rise(word, known.word(word))),
        }
    }

    /// A peer with these pieces counts no more.
    pub(super) fn lose(&mut self, known: &Known) {
        match known {
            Known::Nothing => {}
            Known::All => self.seeds = self.seeds.saturating_sub(1),
            Known::Some(_) => self.words().for_each(|word| self.fall(word, known.word(word))),
        }
    }

    pub(super) fn gain_piece(&mut self, piece: u32) {
        self.rise(piece as usize / 64, 1 << (piece % 64));
    }

    pub(super) fn lose_piece(&mut self, piece: u32) {
        self.fall(piece as usize / 64, 1 << (piece % 64));
    }

    fn words(&self) -> Range<usize> {
        0..(self.held.count() as usize).div_ceil(64)
    }

    /// These pieces of a word have one more holder: those that are fresh go up a level, from the top level down.
    fn rise(&mut self, word: usize, mask: u64) {
        self.spread.add(word, mask);
        for level in (0..LEVELS - 1).rev() {
            let risen = self.fresh[level].take(word, mask);
            self.fresh[level + 1].put(word, risen);
        }
    }

    /// These have one less: down a level, from the lowest up; from the top level only those that now belong below it.
    fn fall(&mut self, word: usize, mask: u64) {
        self.spread.subtract(word, mask);
        for level in 1..LEVELS {
            let falls = if level == LEVELS - 1 { mask & self.spread.at(word, LEVELS as u8 - 2) } else { mask };
            let fallen = self.fresh[level].take(word, falls);
            self.fresh[level - 1].put(word, fallen);
        }
    }

    /// How many peers hold the rarest fresh piece.
    pub(super) fn rarest(&self) -> Option<u32> {
        let level = self.fresh.iter().position(|bits| !bits.is_empty())?;
        Some(self.seeds + level as u32)
    }

    /// Whether some piece is missing that nobody is asked for and nobody holds.
    pub(super) fn lacks(&self) -> bool {
        let unheld = |(piece, begun): (&u32, &Begun)| self.spread.get(*piece) == 0 && begun.asked == 0;
        self.seeds == 0 && (!self.fresh[0].is_empty() || self.begun.iter().any(unheld))
    }

    /// Whether a peer holds anything that is missing here.
    pub(super) fn wants_of(&self, known: &Known) -> bool {
        match known {
            Known::Nothing => false,
            Known::All => !self.held.is_full(),
            Known::Some(_) => self.draw(known, 0).is_some() || self.begun.keys().any(|piece| known.has(*piece)),
        }
    }

    /// Whether some of a piece is neither got nor asked.
    pub(super) fn is_free(&self, piece: u32) -> bool {
        match self.begun.contains_key(&piece) {
            true => self.waiting.contains(piece),
            false => piece < self.held.count() && !self.held.contains(piece),
        }
    }

    /// Whether a piece is asked of somebody and nothing of it has come.
    pub(super) fn is_unbegun(&self, piece: u32) -> bool {
        self.begun.get(&piece).is_some_and(|begun| begun.got == 0)
    }

    /// Whether a peer with these pieces holds a fresh one that fewer hold than this one.
    pub(super) fn has_rarer(&self, known: &Known, piece: u32) -> bool {
        let level = level(self.spread.get(piece));
        self.fresh[..level].iter().any(|bits| bits.draw(known, 0).is_some())
    }

    // ---- what to ask ----------------------------------------------------------------------------------------------

    /// What to ask a peer with these pieces: a run of at most `groups_max` groups of one piece, as a mask.
    pub(super) fn pick(&self, known: &Known, groups_max: u32, random: u64) -> Option<(u32, u64)> {
        let piece = self.draw(known, random)?;
        let begun = self.begun.get(&piece).copied().unwrap_or_default();
        let free = self.full(piece) & !begun.got & !begun.asked;
        Some((piece, first_run(free, groups_max)))
    }

    fn draw(&self, known: &Known, random: u64) -> Option<u32> {
        // A peer with only a part is in the counts: what it holds is not in level 0.
        let first = usize::from(matches!(known, Known::Some(_)));
        let fresh = || self.fresh[first..].iter().find_map(|bits| bits.draw(known, random));
        self.waiting.draw(known, random).or_else(fresh)
    }

    /// These free groups are asked of a peer.
    pub(super) fn ask(&mut self, piece: u32, mask: u64) {
        if !self.begun.contains_key(&piece) {
            self.fresh[level(self.spread.get(piece))].remove(piece);
        }
        self.begun.entry(piece).or_default().asked |= mask;
        self.settle(piece);
    }

    /// These groups, asked of one peer, are asked of a second.
    pub(super) fn ask_again(&mut self, piece: u32, mask: u64) {
        self.twice_bytes += self.bytes(piece, mask);
        if let Some(begun) = self.begun.get_mut(&piece) {
            begun.twice |= mask;
        }
    }

    /// One peer is no longer asked for these groups. Whether some of them are now asked of nobody.
    pub(super) fn release(&mut self, piece: u32, mask: u64) -> bool {
        let Some(begun) = self.begun.get_mut(&piece) else { return false };
        let open = mask & begun.asked;
        let shared = open & begun.twice;
        begun.twice &= !shared;
        begun.asked &= !(open & !shared);
        self.twice_bytes = self.twice_bytes.saturating_sub(self.bytes(piece, shared));
        self.settle(piece);
        open != shared
    }

    /// A group came.
    pub(super) fn got(&mut self, piece: u32, bit: u64) -> Got {
        let full = self.full(piece);
        let Some(begun) = self.begun.get_mut(&piece).filter(|begun| begun.got & bit == 0) else {
            // Either the group is here already; or its piece is fresh, because everybody who was asked for it was released
            // from it, and one of them sent it all the same: then it counts as asked.
            return if self.is_fresh(piece) { self.got_unasked(piece, bit) } else { Got::Again };
        };
        begun.got |= bit;
        begun.asked &= !bit;
        let twice = begun.twice & bit;
        begun.twice &= !bit;
        let complete = begun.got == full;
        self.twice_bytes = self.twice_bytes.saturating_sub(self.bytes(piece, twice));
        self.got_bytes += self.bytes(piece, bit);
        if complete {
            self.begun.remove(&piece);
            self.waiting.remove(piece);
            self.held.insert(piece);
            return Got::Piece;
        }
        self.settle(piece);
        Got::New
    }

    fn got_unasked(&mut self, piece: u32, bit: u64) -> Got {
        self.ask(piece, bit);
        self.got(piece, bit)
    }

    fn is_fresh(&self, piece: u32) -> bool {
        !self.begun.contains_key(&piece) && piece < self.held.count() && !self.held.contains(piece)
    }

    /// Puts a piece where its groups say that it belongs.
    fn settle(&mut self, piece: u32) {
        let Some(begun) = self.begun.get(&piece) else { return };
        if begun.got | begun.asked == 0 {
            self.begun.remove(&piece);
            self.waiting.remove(piece);
            self.fresh[level(self.spread.get(piece))].insert(piece);
        } else if self.full(piece) & !begun.got & !begun.asked != 0 {
            self.waiting.insert(piece);
        } else {
            self.waiting.remove(piece);
        }
    }

    /// Which of these groups are not got yet.
    pub(super) fn missing(&self, piece: u32, mask: u64) -> u64 {
        match self.begun.get(&piece) {
            Some(begun) => mask & !begun.got,
            None if self.held.contains(piece) => 0,
            None => mask,
        }
    }

    /// Whether a group of this piece is asked of two peers.
    pub(super) fn is_asked_twice(&self, piece: u32) -> bool {
        self.begun.get(&piece).is_some_and(|begun| begun.twice != 0)
    }

    // ---- masks ----------------------------------------------------------------------------------------------------

    fn full(&self, piece: u32) -> u64 {
        let groups = self.pieces.groups_of(piece);
        ones((groups.end - groups.start) as u32)
    }

    /// The bytes of a piece's groups.
    pub(super) fn bytes(&self, piece: u32, mask: u64) -> u64 {
        bytes(self.pieces, piece, mask)
    }

    /// The groups of a run in a piece.
    pub(super) fn groups(&self, piece: u32, run: u64) -> Range<u64> {
        let first = self.pieces.groups_of(piece).start + u64::from(run.trailing_zeros());
        first..first + u64::from(run.count_ones())
    }
}

/// The bytes of a piece's groups.
pub(super) fn bytes(pieces: Pieces, piece: u32, mask: u64) -> u64 {
    if mask == 0 {
        return 0;
    }
    let last = pieces.groups_of(piece).start + u64::from(63 - mask.leading_zeros());
    let of_last = pieces.bytes_of(last..last + 1);
    u64::from(mask.count_ones() - 1) * GROUP_BYTES + (of_last.end - of_last.start)
}

/// The first `groups_max` bits of the lowest run of ones.
pub(super) fn first_run(mask: u64, groups_max: u32) -> u64 {
    if mask == 0 {
        return 0;
    }
    let start = mask.trailing_zeros();
    let len = (mask >> start).trailing_ones().min(groups_max.max(1));
    ones(len) << start
}

/// The last `groups_max` bits of the highest run of ones.
pub(super) fn last_run(mask: u64, groups_max: u32) -> u64 {
    first_run(mask.reverse_bits(), groups_max).reverse_bits()
}

fn ones(count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

fn level(spread: u8) -> usize {
    usize::from(spread).min(LEVELS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of 130 pieces of 16 groups, of which nothing is here.
    fn table() -> Table {
        Table::new(Pieces::of(130 << 20).unwrap(), PieceSet::none(130))
    }

    fn holding(pieces: impl IntoIterator<Item = u32>) -> Known {
        let mut set = PieceSet::none(130);
        for piece in pieces {
            set.insert(piece);
        }
        Known::of(set)
    }

    #[test]
    fn a_begun_piece_comes_before_the_rarest_and_that_before_the_others() {
        let mut table = table();
        let (one, other) = (holding(0..100), holding([7, 8]));
        [&one, &one, &other].into_iter().for_each(|known| table.gain(known));
        assert_eq!(table.rarest(), Some(0), "what nobody holds");
        // Of what the two hold, only 7 and 8 have three holders: never those first.
        for random in 0..50u64 {
            let (piece, mask) = table.pick(&one, 16, random << 32 | random).unwrap();
            assert!(piece < 100 && piece != 7 && piece != 8 && mask == 0xffff, "{piece}");
        }
        table.ask(7, 0x000f);
        assert_eq!(table.pick(&one, 3, 9), Some((7, 0x0070)), "the rest of what is begun, as much as may be asked");
        assert_eq!(table.pick(&holding([8]), 16, 9).map(|(piece, _)| piece), Some(8));
        assert!(table.has_rarer(&one, 8) && !table.has_rarer(&other, 8));
        table.lose(&one);
        assert_eq!(table.pick(&Known::All, 16, 9), Some((7, 0xfff0)));
    }

    #[test]
    fn a_group_counts_once_however_often_it_comes_and_the_last_completes_its_piece() {
        let mut table = table();
        table.ask(3, 0xffff);
        assert!(!table.is_free(3) && table.is_unbegun(3));
        assert_eq!(table.got(3, 1), Got::New);
        assert_eq!(table.got(3, 1), Got::Again);
        table.ask_again(3, 0b110);
        assert_eq!(table.twice_bytes(), 2 * GROUP_BYTES);
        assert!(!table.release(3, 0b10), "the other peer is still asked for it");
        assert!(table.release(3, 0b1000), "nobody is");
        assert!(table.is_free(3) && table.missing(3, 0xf) == 0b1110);
        (1..15).for_each(|bit| assert_eq!(table.got(3, 1 << bit), Got::New));
        assert_eq!(table.got(3, 1 << 15), Got::Piece);
        assert!(table.held().contains(3) && table.twice_bytes() == 0);
        assert_eq!((table.got(3, 1), table.got_bytes()), (Got::Again, 1 << 20));
    }

    #[test]
    fn what_comes_after_it_was_taken_back_from_all_counts_all_the_same() {
        let mut table = table();
        table.ask(3, 0b11);
        assert!(table.release(3, 0b11));
        assert!(table.is_free(3) && !table.is_unbegun(3), "as if it had never been asked");
        assert_eq!(table.got(3, 0b10), Got::New);
        assert_eq!(table.missing(3, 0b11), 0b01);
    }

    #[test]
    fn a_blob_lacks_what_nobody_holds_or_sends() {
        let mut table = table();
        assert!(table.lacks());
        let most = holding(1..130);
        table.gain(&most);
        assert!(table.lacks(), "piece 0");
        table.ask(0, 0xffff);
        assert!(!table.lacks(), "it is asked of somebody");
        table.release(0, 0xffff);
        table.gain(&Known::All);
        assert!(!table.lacks());
        assert!(table.wants_of(&Known::All) && !table.wants_of(&Known::Nothing));
    }
}
