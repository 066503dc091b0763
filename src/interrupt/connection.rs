//! A device's connection to an interrupt line: which source of which line it is, and how it moves to another line.

use super::controller::MAX_SHARING;
use crate::indices::LineIndex;
use crate::orderings;
use crate::sync::{AtomicU32, Ordering, const_fn, spin_once};

/// A source of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineShare {
    pub(crate) line: LineIndex,
    /// The number of the source among those of the line.
    source: u8,
}

impl LineShare {
    /// Source number `source` of a line, at most [`MAX_SHARING`].
    pub(crate) fn new(line: LineIndex, source: u32) -> Self {
        Self { line, source: source as u8 }
    }

    /// The bit of the source in the line's sources.
    pub(crate) fn bit(self) -> u32 {
        1_u32.wrapping_shl(self.source.into())
    }
}

/// A connection: one interrupt of a device.
///
/// Its word says where the source is, and how many drives of it are under way. A drive enters the connection, changes the level of
/// the line that the word names, and leaves. A move to another line bars the connection to new drives, which wait, and begins
/// when those under way have left: so a source's level is changed on one line at a time.
///
/// All zeros are a connection that no device has.
pub(crate) struct Connection {
    word: AtomicU32,
}

/// The number of the line, or 0.
const LINE: u32 = 0xffff;
/// The number of the source on the line. Without a line it is one that no source has, so that the word of a connection that a
/// device has is not 0.
const SOURCE_SHIFT: u32 = 16;
const SOURCE: u32 = 0x1f << SOURCE_SHIFT;
/// Without a line: the device asserts the source all the same.
const ASSERTED: u32 = 1 << 21;
/// The connection moves to another line.
const MOVING: u32 = 1 << 22;
/// The device has asked for a line that others may share.
const SHARED: u32 = 1 << 23;
/// One drive that is under way. The bits from here on count them.
const ONE_DRIVE: u32 = 1 << 24;
const DRIVES: u32 = !(ONE_DRIVE - 1);

const _: () = assert!(MAX_SHARING <= (SOURCE >> SOURCE_SHIFT) as usize, "the last number is of no source");

/// The share that a word names.
fn share_in(word: u32) -> Option<LineShare> {
    let line = LineIndex::from_number((word & LINE) as u16)?;
    Some(LineShare::new(line, (word & SOURCE) >> SOURCE_SHIFT))
}

/// The part of a word that names a share.
fn word_of(share: Option<LineShare>) -> u32 {
    share.map_or(SOURCE, |share| u32::from(share.line.number()) | u32::from(share.source) << SOURCE_SHIFT)
}

impl Connection {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { word: AtomicU32::new(0) }
        }
    }

    fn load(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Whether no device has it.
    pub(crate) fn is_free(&self) -> bool {
        self.load() == 0
    }

    /// Gives it to a device.
    pub(crate) fn connect(&self, share: Option<LineShare>, shared: bool) {
        let shared = if shared { SHARED } else { 0 };
        self.word.store(word_of(share) | shared, Ordering::Release);
    }

    /// Takes it from its device, of which no handle is in use any more.
    pub(crate) fn disconnect(&self) {
        self.word.store(0, Ordering::Release);
    }

    /// The source that it is now, if it has a line.
    pub(crate) fn share(&self) -> Option<LineShare> {
        share_in(self.load())
    }

    /// Whether the device has asked for a line that others may share.
    pub(crate) fn is_shared(&self) -> bool {
        self.load() & SHARED != 0
    }

    /// Without a line: whether the device asserts it.
    pub(crate) fn is_asserted(&self) -> bool {
        self.load() & ASSERTED != 0
    }

    /// Enters the connection for a change of the level of its line. Without a line it notes the level, if one is given.
    pub(super) fn enter(&self, level: Option<bool>) -> Option<Drive<'_>> {
        let mut word = self.load();
        loop {
            if orderings::MOVE_BARS && word & MOVING != 0 || word & DRIVES == DRIVES {
                spin_once();
                word = self.load();
                continue;
            }
            let share = share_in(word);
            let new = match (share, level) {
                (Some(_), _) => word.wrapping_add(ONE_DRIVE),
                (None, Some(true)) => word | ASSERTED,
                (None, Some(false)) => word & !ASSERTED,
                (None, None) => return None,
            };
            match self.word.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return share.map(|share| Drive { connection: self, share }),
                Err(now) => word = now,
            }
        }
    }

    /// Whether it moves to another line.
    pub(crate) fn is_moving(&self) -> bool {
        self.load() & MOVING != 0
    }

    /// Bars it to new drives, unless it [moves](Self::is_moving) already. One caller at a time begins: under the manager's lock.
    pub(crate) fn begin_move(&self) {
        self.word.fetch_or(MOVING, Ordering::AcqRel);
    }

    /// Waits until no drive is under way, while the connection moves. Drives are short: they only tell the controller.
    pub(crate) fn wait_idle(&self) {
        while orderings::MOVE_WAIT && self.load() & DRIVES != 0 {
            spin_once();
        }
    }

    /// Ends a move. Without a line, the device asserts it or not.
    pub(crate) fn end_move(&self, share: Option<LineShare>, asserted: bool) {
        let noted = if share.is_none() && asserted { ASSERTED } else { 0 };
        let shared = self.load() & SHARED;
        self.word.store(word_of(share) | shared | noted, Ordering::Release);
    }
}

/// A drive that is under way: as long as this lives, the connection stays this source.
pub(super) struct Drive<'a> {
    connection: &'a Connection,
    pub(super) share: LineShare,
}

impl Drop for Drive<'_> {
    fn drop(&mut self) {
        self.connection.word.fetch_sub(ONE_DRIVE, Ordering::Release);
    }
}
