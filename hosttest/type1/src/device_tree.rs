//! The command line in the device tree that a loader hands over (Devicetree Specification 0.4, chapter 5).

use core::ffi::CStr;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// The property `bootargs` of the tree at `address`. `None` if it has none, or there is no tree.
///
/// # Safety
/// There is readable memory at the address, and what the tree takes is never changed.
pub unsafe fn bootargs(address: usize) -> Option<&'static str> {
    // SAFETY: the caller says that a header can be read.
    let header: [u32; 2] = unsafe { (address as *const [u32; 2]).read() };
    if u32::from_be(header[0]) != MAGIC {
        return None;
    }
    // SAFETY: the tree is as long as its header says.
    let tree = unsafe { core::slice::from_raw_parts(address as *const u8, u32::from_be(header[1]) as usize) };
    let word = |at: usize| Some(u32::from_be_bytes(*tree.get(at..)?.first_chunk()?));
    let text = |at: usize| CStr::from_bytes_until_nul(tree.get(at..)?).ok();
    let (mut at, names) = (word(8)? as usize, word(12)? as usize);
    loop {
        at += match word(at)? {
            BEGIN_NODE => 4 + (text(at + 4)?.count_bytes() + 1).next_multiple_of(4),
            PROPERTY if text(names + word(at + 8)? as usize)? == c"bootargs" => return text(at + 12)?.to_str().ok(),
            PROPERTY => 12 + (word(at + 4)? as usize).next_multiple_of(4),
            END => return None,
            _ => 4,
        };
    }
}
