//! Types in which weights are stored.
//!
//! Source of the blocks: ggml-org/ggml ggml-common.h.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    F32,
    Bf16,
    F16,
    /// OCP e4m3 without infinities.
    F8E4m3,
    I8,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Mxfp4,
}

/// The dtype id and name of a command list, the type, and the elements and bytes of a block.
const TABLE: [(u32, &str, Format, usize, usize); 15] = [
    (0, "f32", Format::F32, 1, 4),
    (1, "bf16", Format::Bf16, 1, 2),
    (4, "f16", Format::F16, 1, 2),
    (5, "f8_e4m3", Format::F8E4m3, 1, 1),
    (6, "i8", Format::I8, 1, 1),
    (7, "q8_0", Format::Q8_0, 32, 34),
    (8, "q4_0", Format::Q4_0, 32, 18),
    (9, "q4_1", Format::Q4_1, 32, 20),
    (10, "q5_0", Format::Q5_0, 32, 22),
    (11, "q5_1", Format::Q5_1, 32, 24),
    (12, "q4_k", Format::Q4K, 256, 144),
    (13, "q5_k", Format::Q5K, 256, 176),
    (14, "q6_k", Format::Q6K, 256, 210),
    (15, "iq4_nl", Format::Iq4Nl, 32, 18),
    (16, "mxfp4", Format::Mxfp4, 32, 17),
];

/// A multiple of the elements of every block.
pub const MOST_BLOCK: usize = 256;

impl Format {
    /// The type of a dtype id.
    pub fn of_id(id: f64) -> Option<Self> {
        TABLE.iter().find(|row| f64::from(row.0) == id).map(|row| row.2)
    }

    #[cfg(test)]
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.2)
    }

    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    pub fn block_elements(self) -> usize {
        TABLE[self as usize].3
    }

    pub fn block_bytes(self) -> usize {
        TABLE[self as usize].4
    }

    /// What addresses must be a multiple of.
    pub fn align(self) -> usize {
        if self.block_elements() == 1 { self.block_bytes() } else { 1 }
    }

    /// Bytes of the blocks that hold so many elements.
    pub fn bytes(self, elements: usize) -> usize {
        elements.div_ceil(self.block_elements()) * self.block_bytes()
    }
}
