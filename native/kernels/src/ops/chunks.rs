//! How work is cut: by shape alone, into chunks that own their outputs.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Ctx;

/// Elements a chunk should have at least: below this, waking a thread costs more than it saves.
pub(super) const GRAIN: usize = 16 * 1024;

/// Memory of which chunks write parts that do not overlap. It also stands for operands of one call that interleave in
/// memory, such as the columns of dk1 and dv in one matrix.
#[derive(Clone, Copy)]
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are only had through `part`, whose caller promises that they do not overlap.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// # Safety
    /// `start` must be valid for `len` elements during `'a`, and what else is read or written there meanwhile must lie
    /// outside the elements that the kernel is defined to touch.
    pub unsafe fn from_raw(start: *mut T, len: usize) -> Self {
        Self { start, len, life: PhantomData }
    }

    pub(crate) fn start(&self) -> *const T {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// `len` elements from `start`; panics when they are not all inside.
    ///
    /// # Safety
    /// No other reference to any of these elements may be alive.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.len),
            "kernel: a part must end within {} elements, got {start} + {len}",
            self.len
        );
        // SAFETY: in bounds by the check, not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// Calls `work` on ranges that together are `0..rows`. A range has about `GRAIN` elements when a row has `width`.
pub(super) fn each_rows(ctx: Ctx, rows: usize, width: usize, work: impl Fn(Range<usize>) + Sync) {
    let per_chunk = GRAIN.div_ceil(width.max(1));
    each_chunk(ctx, rows.div_ceil(per_chunk), |chunk| {
        work(chunk * per_chunk..rows.min((chunk + 1) * per_chunk));
    });
}

/// Calls `work` once per chunk; a single chunk runs on the calling thread.
pub(super) fn each_chunk(ctx: Ctx, chunks: usize, work: impl Fn(usize) + Sync) {
    match chunks {
        0 => (),
        1 => work(0),
        _ => ctx.pool.run(chunks, &work),
    }
}

/// The index as usize; panics unless it lies in `0..limit`.
#[inline(always)]
pub(super) fn checked_index(kernel: &str, name: &str, index: i32, limit: usize) -> usize {
    let place = index as usize;
    assert!(index >= 0 && place < limit, "{kernel}: {name} must lie in [0, {limit}), got {index}");
    place
}
