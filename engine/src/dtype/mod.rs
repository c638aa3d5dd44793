//! The tensor types of ggml: ids, names and block sizes.

pub(crate) mod block;

use std::fmt;

use block::FORMATS;

/// Defines [`DType`] from one table: variant, ggml id, name, values per block, bytes per block.
macro_rules! dtypes {
    ($($variant:ident = $id:literal, $name:literal, $size:literal, $bytes:literal;)*) => {
        /// How the values of a tensor are stored. All ids of ggml are known by name; [`DType::is_supported`] says which can
        /// be decoded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, reason = "the names are ggml's")]
        #[non_exhaustive]
        pub enum DType {
            $(#[doc = concat!("`", $name, "`: ", $size, " values in ", $bytes, " bytes.")] $variant,)*
            /// An id this version does not know.
            Unknown(u32),
        }

        impl DType {
            /// The type with this ggml id.
            pub fn from_ggml(id: u32) -> Self {
                match id {
                    $($id => Self::$variant,)*
                    _ => Self::Unknown(id),
                }
            }

            /// The ggml id.
            pub fn ggml_id(self) -> u32 {
                match self {
                    $(Self::$variant => $id,)*
                    Self::Unknown(id) => id,
                }
            }

            /// The ggml name, such as `Q4_K`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown(_) => "unknown",
                }
            }

            /// (values per block, bytes per block); `None` for an unknown id.
            pub fn layout(self) -> Option<(u64, u64)> {
                match self {
                    $(Self::$variant => Some(($size, $bytes)),)*
                    Self::Unknown(_) => None,
                }
            }
        }
    };
}

dtypes! {
    F32 = 0, "F32", 1, 4;
    F16 = 1, "F16", 1, 2;
    Q4_0 = 2, "Q4_0", 32, 18;
    Q4_1 = 3, "Q4_1", 32, 20;
    Q5_0 = 6, "Q5_0", 32, 22;
    Q5_1 = 7, "Q5_1", 32, 24;
    Q8_0 = 8, "Q8_0", 32, 34;
    Q8_1 = 9, "Q8_1", 32, 40;
    Q2_K = 10, "Q2_K", 256, 84;
    Q3_K = 11, "Q3_K", 256, 110;
    Q4_K = 12, "Q4_K", 256, 144;
    Q5_K = 13, "Q5_K", 256, 176;
    Q6_K = 14, "Q6_K", 256, 210;
    Q8_K = 15, "Q8_K", 256, 292;
    IQ2_XXS = 16, "IQ2_XXS", 256, 66;
    IQ2_XS = 17, "IQ2_XS", 256, 74;
    IQ3_XXS = 18, "IQ3_XXS", 256, 98;
    IQ1_S = 19, "IQ1_S", 256, 50;
    IQ4_NL = 20, "IQ4_NL", 32, 18;
    IQ3_S = 21, "IQ3_S", 256, 110;
    IQ2_S = 22, "IQ2_S", 256, 82;
    IQ4_XS = 23, "IQ4_XS", 256, 136;
    I8 = 24, "I8", 1, 1;
    I16 = 25, "I16", 1, 2;
    I32 = 26, "I32", 1, 4;
    I64 = 27, "I64", 1, 8;
    F64 = 28, "F64", 1, 8;
    IQ1_M = 29, "IQ1_M", 256, 56;
    BF16 = 30, "BF16", 1, 2;
    TQ1_0 = 34, "TQ1_0", 256, 54;
    TQ2_0 = 35, "TQ2_0", 256, 66;
    MXFP4 = 39, "MXFP4", 32, 17;
    NVFP4 = 40, "NVFP4", 64, 36;
    Q1_0 = 41, "Q1_0", 128, 18;
}

/// Types whose layout is not known here: those that ggml no longer has, and `Q2_0`.
const NAMES_ONLY: [(u32, &str); 9] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (42, "Q2_0"),
];

impl DType {
    /// Values per block; 1 for an unknown id.
    pub fn block_size(self) -> u64 {
        self.layout().map_or(1, |(size, _)| size)
    }

    /// Bytes per block; 0 for an unknown id.
    pub fn block_bytes(self) -> u64 {
        self.layout().map_or(0, |(_, bytes)| bytes)
    }

    /// The types that [`dequantize`](crate::formats::dequantize()) (and with it the engine) can read.
    pub fn supported() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|(dtype, _)| *dtype)
    }

    /// Whether it is one of [`DType::supported`].
    pub fn is_supported(self) -> bool {
        Self::supported().any(|dtype| dtype == self)
    }

    /// The names of [`DType::supported`], for messages.
    pub(crate) fn supported_names() -> String {
        Self::supported().map(Self::name).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => match NAMES_ONLY.iter().find(|(known, _)| known == id) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "with ggml type id {id}"),
            },
            known => f.write_str(known.name()),
        }
    }
}
