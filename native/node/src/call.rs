//! One encoded call: its operands, checked against their buffers and each other, and its numbers.

use crate::buffers::{self, Buffer};
use fathom_kernels::gemm::{Dtype, MatIn};
use fathom_kernels::ops::{Shared, Source, Target};
use fathom_kernels::stored::{Format, Scale, Stored};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

pub type Result<T> = std::result::Result<T, String>;

/// dtype ids of the command list.
const F32: f64 = 0.0;
const BF16: f64 = 1.0;
const I32: f64 = 2.0;
/// Largest integer that a number may be.
const MOST: f64 = 9_007_199_254_740_991.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    /// Written in places that do not overlap those of other such operands.
    Interleaved,
}

/// Memory that the call has taken so far.
struct Claim {
    operand: &'static str,
    bytes: Range<usize>,
    access: Access,
}

/// A call with its names; `words` are those after opcode and length.
pub struct Call<'a> {
    pub kernel: &'static str,
    words: &'a [f64],
    operands: usize,
    claims: RefCell<Vec<Claim>>,
}

impl<'a> Call<'a> {
    pub fn new(kernel: &'static str, words: &'a [f64], operands: usize) -> Self {
        Self { kernel, words, operands, claims: RefCell::default() }
    }

    fn error<T>(&self, text: String) -> Result<T> {
        Err(format!("{}: {text}", self.kernel))
    }

    /// An operand that may be left out.
    pub fn optional(&self, i: usize, name: &'static str) -> Result<Option<Operand<'_>>> {
        let [handle, offset, dtype] = [0, 1, 2].map(|word| self.words[3 * i + word]);
        if handle == 0.0 {
            return Ok(None);
        }
        let offset = self.integer(name, "offset", offset)?;
        match buffers::get(handle) {
            Ok(buffer) => Ok(Some(Operand { call: self, name, buffer, offset, dtype })),
            Err(text) => self.error(format!("{name}: {text}")),
        }
    }

    pub fn required(&self, i: usize, name: &'static str) -> Result<Operand<'_>> {
        match self.optional(i, name)? {
            Some(operand) => Ok(operand),
            None => self.error(format!("{name} must be given")),
        }
    }

    pub fn real(&self, i: usize) -> f64 {
        self.words[3 * self.operands + i]
    }

    /// A count, stride or position.
    pub fn size(&self, i: usize, name: &str) -> Result<usize> {
        self.integer(name, "number", self.real(i))
    }

    /// 0 or 1.
    pub fn flag(&self, i: usize, name: &str) -> Result<bool> {
        Ok(self.choice(i, name, 2)? == 1)
    }

    /// An integer below `count`.
    pub fn choice(&self, i: usize, name: &str, count: usize) -> Result<usize> {
        let value = self.size(i, name)?;
        if value < count { Ok(value) } else { self.error(format!("{name} must be below {count}, got {value}")) }
    }

    fn integer(&self, name: &str, what: &str, value: f64) -> Result<usize> {
        if (0.0..=MOST).contains(&value) && value.fract() == 0.0 {
            return Ok(value as usize);
        }
        self.error(format!("{name}: the {what} must be an integer of at least 0, got {value}"))
    }

    /// A rule on numbers that the memory checks do not see.
    pub fn require(&self, holds: bool, rule: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { self.error(rule()) }
    }
}

/// Elements of a contiguous array; `usize::MAX` where that is beyond any memory.
pub fn area(dims: &[usize]) -> usize {
    if dims.contains(&0) {
        return 0;
    }
    dims.iter().fold(1, |product, &dim| product.saturating_mul(dim))
}

/// Elements from the first to the last of an array with strides: `[(count, stride)…]`, and `width` contiguous ones.
pub fn span(steps: &[(usize, usize)], width: usize) -> usize {
    if width == 0 || steps.iter().any(|&(count, _)| count == 0) {
        return 0;
    }
    steps.iter().fold(width, |sum, &(count, stride)| sum.saturating_add((count - 1).saturating_mul(stride)))
}

/// The elements of a stored matrix that a kernel reads, from the first to the last.
#[derive(Clone, Copy)]
pub struct StoredShape {
    pub len: usize,
    /// Elements from row to row, and those of a row that are read.
    pub stride: usize,
    pub cols: usize,
    /// The block that shares a scale, where there are scales.
    pub scale_rows: usize,
    pub scale_cols: usize,
}

/// What an operand is made of: blocks of so many elements and bytes, at multiples of `align`.
struct Unit {
    elements: usize,
    bytes: usize,
    align: usize,
}

impl Unit {
    fn plain(bytes: usize) -> Self {
        Self { elements: 1, bytes, align: bytes }
    }
}

/// Where an operand lies. Its memory is had by saying how many elements the kernel touches.
pub struct Operand<'c> {
    call: &'c Call<'c>,
    name: &'static str,
    buffer: Arc<Buffer>,
    offset: usize,
    dtype: f64,
}

impl<'c> Operand<'c> {
    fn claim(&self, len: usize, element_bytes: usize, access: Access) -> Result<*mut u8> {
        self.claim_blocks(len, Unit::plain(element_bytes), access)
    }

    /// Checks range, alignment and overlap, and returns the address. The offset is a whole number of blocks.
    fn claim_blocks(&self, len: usize, unit: Unit, access: Access) -> Result<*mut u8> {
        let name = self.name;
        let start = (self.offset / unit.elements).saturating_mul(unit.bytes);
        let size = len.div_ceil(unit.elements).saturating_mul(unit.bytes);
        let room = self.buffer.bytes();
        if start.checked_add(size).is_none_or(|end| end > room) {
            let (offset, elements) = (self.offset, room / unit.bytes * unit.elements);
            return self.call.error(format!(
                "{name} must lie within its buffer of {elements} elements, got {len} from {offset} on"
            ));
        }
        if access != Access::Read && !self.buffer.is_writable() {
            return self.call.error(format!("{name} is written, so it must not be a mapped file"));
        }
        let ptr = self.buffer.ptr().wrapping_add(start);
        let align = unit.align;
        if !(ptr as usize).is_multiple_of(align) {
            return self.call.error(format!(
                "{name} must be aligned to {align} bytes; copy the file's tensor instead of mapping it"
            ));
        }
        let claim = Claim { operand: name, bytes: ptr as usize..ptr as usize + size, access };
        let mut claims = self.call.claims.borrow_mut();
        if let Some(other) = claims.iter().find(|other| conflict(other, &claim)) {
            return self.call.error(format!("{name} must not overlap {}", other.operand));
        }
        claims.push(claim);
        Ok(ptr)
    }

    fn wrong_dtype<T>(&self, wanted: &str) -> Result<T> {
        self.call.error(format!("{} must be {wanted}, got dtype id {}", self.name, self.dtype))
    }

    fn need(&self, dtype: f64, wanted: &str) -> Result<()> {
        if self.dtype == dtype { Ok(()) } else { self.wrong_dtype(wanted) }
    }

    pub fn f32(&self, len: usize) -> Result<&[f32]> {
        self.need(F32, "f32")?;
        // SAFETY: `claim` checked range and alignment, and that nothing of this call writes there.
        Ok(unsafe { std::slice::from_raw_parts(self.claim(len, 4, Access::Read)?.cast(), len) })
    }

    pub fn i32(&self, len: usize) -> Result<&[i32]> {
        self.need(I32, "i32")?;
        // SAFETY: as in `f32`.
        Ok(unsafe { std::slice::from_raw_parts(self.claim(len, 4, Access::Read)?.cast(), len) })
    }

    /// f32 or bf16 to be read.
    pub fn source(&self, len: usize) -> Result<Source<'_>> {
        if self.dtype == BF16 {
            // SAFETY: as in `f32`.
            return Ok(Source::Bf16(unsafe {
                std::slice::from_raw_parts(self.claim(len, 2, Access::Read)?.cast(), len)
            }));
        }
        if self.dtype == F32 { Ok(Source::F32(self.f32(len)?)) } else { self.wrong_dtype("f32 or bf16") }
    }

    /// A matrix of f32 or bf16 to be read, `stride` elements from row to row; `len` elements in all.
    pub fn matrix(&self, len: usize, stride: usize) -> Result<MatIn<'_>> {
        Ok(match self.source(len)? {
            Source::F32(x) => MatIn { ptr: x.as_ptr().cast(), dtype: Dtype::F32, stride, trans: false, index: None },
            Source::Bf16(x) => MatIn { ptr: x.as_ptr().cast(), dtype: Dtype::Bf16, stride, trans: false, index: None },
        })
    }

    /// f32 or bf16 without scales, which need no decoding.
    pub fn is_plain(&self, scale: Option<&Operand>) -> bool {
        scale.is_none() && (self.dtype == F32 || self.dtype == BF16)
    }

    /// A matrix of any stored type, with its scales if there are any.
    pub fn stored<'o>(&'o self, scale: Option<&'o Operand>, shape: StoredShape) -> Result<Stored<'o>> {
        let Some(format) = Format::of_id(self.dtype) else {
            return self.wrong_dtype("of a type that weights are stored in");
        };
        let StoredShape { len, stride, cols, .. } = shape;
        let (name, offset, elements) = (self.name, self.offset, format.block_elements());
        let whole = offset.is_multiple_of(elements) && (len <= cols || stride.is_multiple_of(elements));
        self.call.require(whole, || {
            let type_name = format.name();
            format!("{name} must have offset and rows of whole blocks of {type_name} ({elements} elements), got {offset} and {stride}")
        })?;
        let unit = Unit { elements, bytes: format.block_bytes(), align: format.align() };
        let first = self.claim_blocks(len, unit, Access::Read)?;
        let scale = match scale {
            Some(scale) if len > 0 => Some(self.scale(scale, shape)?),
            _ => None,
        };
        Ok(Stored { format, base: first.wrapping_sub(format.bytes(offset)), offset, stride, scale })
    }

    fn scale<'o>(&self, scale: &'o Operand, shape: StoredShape) -> Result<Scale<'o>> {
        let StoredShape { len, stride, cols, scale_rows, scale_cols } = shape;
        self.call.require(scale_rows > 0 && scale_cols > 0, || {
            format!("scale_rows and scale_cols must be above 0, got {scale_rows} and {scale_cols}")
        })?;
        let in_row = stride > 0 && self.offset % stride + cols <= stride;
        self.call.require(in_row, || {
            let (name, offset) = (self.name, self.offset);
            format!("{name} must have rows within those of the scaled matrix ({stride} elements), got {cols} from {offset} on")
        })?;
        let row = (self.offset + len - 1) / stride / scale_rows;
        let values = scale.f32((row + 1).saturating_mul(stride.div_ceil(scale_cols)))?;
        Ok(Scale { values, rows: scale_rows, cols: scale_cols })
    }

    /// The handles that the operand holds in place of values.
    pub fn handles(&self, count: usize) -> Result<&[f64]> {
        // SAFETY: as in `f32`.
        Ok(unsafe { std::slice::from_raw_parts(self.claim(count, 8, Access::Read)?.cast(), count) })
    }

    /// An operand of the same type at the start of another buffer.
    pub fn at(&self, handle: f64) -> Result<Operand<'c>> {
        match buffers::get(handle) {
            Ok(buffer) => Ok(Operand { buffer, offset: 0, ..*self }),
            Err(text) => self.call.error(format!("{}: {text}", self.name)),
        }
    }

    #[allow(clippy::mut_from_ref)] // the claim makes it the only one
    pub fn f32_mut(&self, len: usize) -> Result<&mut [f32]> {
        self.need(F32, "f32")?;
        // SAFETY: as in `f32`; the range overlaps nothing else of this call.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.claim(len, 4, Access::Write)?.cast(), len) })
    }

    #[allow(clippy::mut_from_ref)]
    pub fn i32_mut(&self, len: usize) -> Result<&mut [i32]> {
        self.need(I32, "i32")?;
        // SAFETY: as in `f32_mut`.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.claim(len, 4, Access::Write)?.cast(), len) })
    }

    #[allow(clippy::mut_from_ref)]
    pub fn bf16_mut(&self, len: usize) -> Result<&mut [u16]> {
        self.need(BF16, "bf16")?;
        // SAFETY: as in `f32_mut`.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.claim(len, 2, Access::Write)?.cast(), len) })
    }

    /// f32 or bf16 to be written.
    pub fn target(&self, len: usize) -> Result<Target<'_>> {
        if self.dtype == BF16 { Ok(Target::Bf16(self.bf16_mut(len)?)) } else { Ok(Target::F32(self.f32_mut(len)?)) }
    }

    /// f32 to be written between the elements of other interleaved operands.
    pub fn interleaved(&self, len: usize) -> Result<Shared<'_, f32>> {
        self.need(F32, "f32")?;
        // SAFETY: as in `f32`; the kernel checks that strided parts do not meet.
        Ok(unsafe { Shared::from_raw(self.claim(len, 4, Access::Interleaved)?.cast(), len) })
    }

    /// Both name the same element of the same buffer.
    pub fn is_same(&self, other: &Operand) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer) && self.offset == other.offset && self.dtype == other.dtype
    }
}

fn conflict(a: &Claim, b: &Claim) -> bool {
    let meet = a.bytes.start < b.bytes.end && b.bytes.start < a.bytes.end;
    let reads_only = a.access == Access::Read && b.access == Access::Read;
    let interleaved = a.access == Access::Interleaved && b.access == Access::Interleaved;
    meet && !reads_only && !interleaved
}
