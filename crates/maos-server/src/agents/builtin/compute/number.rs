//! Numbers as JSON has them: whole ones within 64 bits are exact, all others are 64-bit floats.
//! What fits neither is a fault; nothing is rounded into something else in silence.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::Fault;

/// A number on its way through a calculation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Figure {
    /// Wider than what is accepted and answered, so that an order of steps does not matter.
    Whole(i128),
    /// Always finite.
    Real(f64),
}

use Figure::{Real, Whole};

impl Figure {
    pub(crate) fn of(value: &Value) -> Option<Figure> {
        let number = value.as_number()?;
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        whole.map(Whole).or_else(|| number.as_f64().filter(|real| real.is_finite()).map(Real))
    }

    /// The number as a result, if there is one that says the same.
    pub(crate) fn value(self) -> Result<Value, Fault> {
        let number = match self {
            Whole(whole) => i64::try_from(whole)
                .map(Number::from)
                .or_else(|_| u64::try_from(whole).map(Number::from))
                .map_err(|_| Fault::wrong("the result does not fit 64 bits"))?,
            Real(real) => Number::from_f64(real).ok_or_else(not_finite)?,
        };
        Ok(Value::Number(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "where whole numbers meet reals, reals rule")]
    pub(crate) fn real(self) -> f64 {
        match self {
            Whole(whole) => whole as f64,
            Real(real) => real,
        }
    }

    pub(crate) fn compare(self, other: Figure) -> Ordering {
        if let (Whole(left), Whole(right)) = (self, other) {
            return left.cmp(&right);
        }
        // All are finite; 0.0 and -0.0 are the same number.
        let close = self.real().partial_cmp(&other.real()).unwrap_or(Ordering::Equal);
        // A float that equals a rounded whole number is whole itself and within its range.
        close.then_with(|| self.floor().cmp(&other.floor()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the order of near numbers is asked")]
    fn floor(self) -> i128 {
        match self {
            Whole(whole) => whole,
            Real(real) => real.floor() as i128,
        }
    }
}

/// A real result, if it is one.
pub(crate) fn finite(real: f64) -> Result<Figure, Fault> {
    if real.is_finite() { Ok(Real(real)) } else { Err(not_finite()) }
}

pub(crate) fn not_finite() -> Fault {
    Fault::wrong("the result is not a finite number")
}

pub(crate) fn too_large() -> Fault {
    Fault::wrong("the result does not fit 64 bits")
}

/// The sum; of reals with what rounding takes away added back at the end (Neumaier).
pub(crate) fn sum(figures: &[Figure]) -> Result<Figure, Fault> {
    if let Some(wholes) = wholes(figures) {
        let sum = wholes.iter().try_fold(0_i128, |sum, whole| sum.checked_add(*whole));
        return sum.map(Whole).ok_or_else(too_large);
    }
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for figure in figures {
        let real = figure.real();
        let next = sum + real;
        lost += if sum.abs() >= real.abs() { (sum - next) + real } else { (real - next) + sum };
        sum = next;
    }
    finite(sum + lost)
}

pub(crate) fn product(figures: &[Figure]) -> Result<Figure, Fault> {
    let Some(wholes) = wholes(figures) else {
        return finite(figures.iter().map(|figure| figure.real()).product());
    };
    if wholes.contains(&0) {
        return Ok(Whole(0));
    }
    let product = wholes.iter().try_fold(1_i128, |product, whole| product.checked_mul(*whole));
    product.map(Whole).ok_or_else(too_large)
}

pub(crate) fn least(figures: &[Figure]) -> Option<Figure> {
    figures.iter().copied().min_by(|left, right| left.compare(*right))
}

pub(crate) fn greatest(figures: &[Figure]) -> Option<Figure> {
    figures.iter().copied().max_by(|left, right| left.compare(*right))
}

/// The mean, always a real; none of nothing.
pub(crate) fn mean(figures: &[Figure]) -> Result<Option<Figure>, Fault> {
    if figures.is_empty() {
        return Ok(None);
    }
    finite(sum(figures)?.real() / length(figures)).map(Some)
}

/// How far they lie from their mean: the root of the mean of the squares.
pub(crate) fn deviation(figures: &[Figure]) -> Result<Option<Figure>, Fault> {
    let Some(mean) = mean(figures)? else { return Ok(None) };
    let squares: Vec<Figure> = figures
        .iter()
        .map(|figure| finite((figure.real() - mean.real()).powi(2)))
        .collect::<Result<_, Fault>>()?;
    finite((sum(&squares)?.real() / length(figures)).sqrt()).map(Some)
}

/// The middle one of the sorted numbers, or the mean of the two in the middle.
pub(crate) fn median(figures: &[Figure]) -> Result<Option<Figure>, Fault> {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(|left, right| left.compare(*right));
    let half = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(half)) {
        (_, None) => Ok(None),
        (1, Some(middle)) => Ok(Some(*middle)),
        (_, Some(_)) => mean(&sorted[half - 1..=half]),
    }
}

fn wholes(figures: &[Figure]) -> Option<Vec<i128>> {
    let whole = |figure: &Figure| match figure {
        Whole(whole) => Some(*whole),
        Real(_) => None,
    };
    figures.iter().map(whole).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a list in memory is far shorter than 2^53")]
fn length(figures: &[Figure]) -> f64 {
    figures.len() as f64
}
