//! Which of the matrices that a browser's subgroups multiply suit the kernels, and if none does, why.

use serde::Deserialize;

use super::adapter::MatrixSupport;
use crate::device::SubgroupMatrix;

/// What a browser shows of an adapter: `matrixOffer` in `web_features.js`.
#[derive(Debug, Deserialize)]
pub(super) struct Offer {
    /// Invocations of the smallest subgroup.
    least: u32,
    /// Invocations of the largest subgroup.
    most: u32,
    shapes: Vec<Shape>,
}

/// A product of `m` x `k` with `k` x `n` elements.
#[derive(Debug, Deserialize)]
struct Shape {
    element: String,
    sum: String,
    m: u32,
    n: u32,
    k: u32,
    /// Why the browser refuses a shader that multiplies such matrices as the kernels do; `None`: it does not, or was not asked.
    problem: Option<String>,
}

impl Shape {
    fn is(&self, matrix: SubgroupMatrix) -> bool {
        let element = if matrix.half() { "f16" } else { "f32" };
        self.element == element && self.sum == "f32" && [self.m, self.n, self.k] == [matrix.side(); 3]
    }

    fn name(&self) -> String {
        format!("{} {}x{}x{}, sums {}", self.element, self.m, self.n, self.k, self.sum)
    }
}

/// The fastest matrices that are listed, that kernels have, and that the browser accepts. `half`: the device has half precision.
pub(super) fn choose(offer: &Offer, half: bool) -> (Option<SubgroupMatrix>, MatrixSupport) {
    let chosen = find(offer, half);
    let support = MatrixSupport {
        shapes: offer.shapes.iter().map(Shape::name).collect(),
        used: chosen.as_ref().ok().map(|(_, shape)| shape.name()),
        unused_because: chosen.as_ref().err().cloned(),
    };
    (chosen.ok().map(|(matrix, _)| matrix), support)
}

fn find(offer: &Offer, half: bool) -> Result<(SubgroupMatrix, &Shape), String> {
    if offer.least != offer.most || ![8, 16, 32].contains(&offer.least) {
        let Offer { least, most, .. } = offer;
        return Err(format!("subgroups have {least} to {most} invocations, and kernels need 8, 16 or 32 in each"));
    }
    let listed = |matrix| offer.shapes.iter().find(|shape| shape.is(matrix)).map(|shape| (matrix, shape));
    let listed: Vec<_> = SubgroupMatrix::ALL.into_iter().filter_map(listed).collect();
    if listed.is_empty() {
        return Err("kernels have none of the listed shapes, but f16 16x16x16, f16 8x8x8 and f32 8x8x8, each with sums in f32".to_owned());
    }
    let possible: Vec<_> = listed.into_iter().filter(|(matrix, _)| half || !matrix.half()).collect();
    let Some((_, first)) = possible.first() else { return Err("their elements are f16, which the browser does not show".to_owned()) };
    let problem = || format!("the browser has them in another form than kernels use: {}", first.problem.as_deref().unwrap_or_default());
    possible.iter().find(|(_, shape)| shape.problem.is_none()).copied().ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shape(element: &str, side: u32, problem: Option<&str>) -> Value {
        json!({ "element": element, "sum": "f32", "m": side, "n": side, "k": side, "problem": problem })
    }

    fn chosen(least: u32, shapes: &[Value], half: bool) -> (Option<SubgroupMatrix>, MatrixSupport) {
        let offer = json!({ "least": least, "most": 32, "shapes": shapes });
        choose(&serde_json::from_value(offer).expect("an offer"), half)
    }

    #[test]
    fn matrices_choose_fastest_supported_shape() {
        let wide = json!({ "element": "f16", "sum": "f32", "m": 16, "n": 8, "k": 16, "problem": null });
        let narrow_sums = json!({ "element": "f16", "sum": "f16", "m": 16, "n": 16, "k": 16, "problem": null });
        let all = [wide.clone(), narrow_sums.clone(), shape("f32", 8, None), shape("f16", 8, None), shape("f16", 16, None)];
        let (matrix, support) = chosen(32, &all, true);
        assert_eq!(matrix, Some(SubgroupMatrix::F16x16));
        assert_eq!(support.used.as_deref(), Some("f16 16x16x16, sums f32"));
        assert_eq!((support.shapes.len(), support.shapes[0].as_str()), (5, "f16 16x8x16, sums f32"));
        assert_eq!(support.unused_because, None);
        assert_eq!(chosen(32, &all, false).0, Some(SubgroupMatrix::F32x8));
        let refused = shape("f16", 16, Some("no matching call"));
        assert_eq!(chosen(32, &[refused, shape("f16", 8, None)], true).0, Some(SubgroupMatrix::F16x8));
    }

    #[test]
    fn matrices_unused_state_the_reason() {
        let cases = [
            (chosen(4, &[shape("f32", 8, None)], true), "subgroups have 4 to 32 invocations"),
            (chosen(32, &[], true), "none of the listed shapes"),
            (chosen(32, &[shape("f32", 16, None)], true), "none of the listed shapes"),
            (chosen(32, &[shape("f16", 16, None)], false), "f16, which the browser does not show"),
            (chosen(32, &[shape("f16", 16, Some("no matching call"))], true), "another form than kernels use: no matching call"),
        ];
        for ((matrix, support), why) in cases {
            assert_eq!((matrix, support.used), (None, None));
            assert!(support.unused_because.as_ref().is_some_and(|said| said.contains(why)), "{:?}", support.unused_because);
        }
    }
}
