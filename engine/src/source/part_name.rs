//! Names of the parts of a split GGUF file.

/// The name of a part, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartName<'a> {
    /// What is before `-00001-of-00003.gguf`.
    pub prefix: &'a str,
    /// Number of this part, from 1.
    pub number: u32,
    /// Number of parts.
    pub count: u32,
}

impl<'a> PartName<'a> {
    /// Takes a file name apart; `None` when it is not a part's.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| if text.len() == 5 { text.parse().ok() } else { None };
        Some(Self { prefix, number: digits(number)?, count: digits(count)? })
    }

    /// The name of part `number`.
    pub(crate) fn with_number(self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }
}
