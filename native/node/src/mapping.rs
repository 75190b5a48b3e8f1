//! Files in memory: windows of one file share one mapping, as a checkpoint can have more tensors than the system allows
//! mappings (65,530 on Linux).

use memmap2::{Mmap, MmapOptions};
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

/// A file that has not changed: what tells it from another one, or from itself after a change.
#[derive(PartialEq, Eq)]
struct Identity {
    path: String,
    place: (u64, u64),
    bytes: u64,
    modified: Option<SystemTime>,
}

/// Mappings that buffers hold; those that nobody holds any more are forgotten when the next one is made.
static MAPPINGS: Mutex<Vec<(Identity, Weak<Mmap>)>> = Mutex::new(Vec::new());

/// The whole file, private and read only; `UnexpectedEof` unless it holds `bytes` bytes from `offset` on.
pub fn of_file(path: &str, offset: u64, bytes: u64) -> Result<Arc<Mmap>> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    let length = facts.len();
    if offset.checked_add(bytes).is_none_or(|end| end > length) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let modified = facts.modified().ok();
    let identity = Identity { path: path.to_string(), place: place_of(&facts), bytes: length, modified };
    let mut mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let found = mappings.iter().find(|(other, _)| *other == identity).and_then(|(_, map)| map.upgrade());
    if let Some(map) = found {
        return Ok(map);
    }
    let size = usize::try_from(length).map_err(|_| Error::new(ErrorKind::FileTooLarge, path.to_string()))?;
    // SAFETY: the mapping is private and read only. A file that another process cuts short faults, as with any mapping.
    // An empty file cannot be mapped, but a page of it can, of which nothing is read.
    let map = Arc::new(unsafe { MmapOptions::new().len(size.max(1)).map_copy_read_only(&file)? });
    mappings.retain(|(_, map)| map.strong_count() > 0);
    mappings.push((identity, Arc::downgrade(&map)));
    Ok(map)
}

/// Device and number of a file.
#[cfg(unix)]
fn place_of(facts: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (facts.dev(), facts.ino())
}

#[cfg(not(unix))]
fn place_of(_facts: &Metadata) -> (u64, u64) {
    (0, 0)
}
