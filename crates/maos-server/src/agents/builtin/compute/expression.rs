//! Formulas: numbers, names, `+ - * / % ^`, parentheses and a few functions. There are no loops, so
//! a formula takes time in proportion to its length, and its length is bounded.

use std::collections::BTreeMap;

use super::Fault;
use super::number::{Figure, finite, greatest, least, not_finite, too_large};
use Figure::{Real, Whole};

/// Most characters of a formula.
const CHARS_MAX: usize = 4_096;
/// Deepest nesting of parentheses, signs and powers.
const DEPTH_MAX: u32 = 64;

const FUNCTIONS: &str = "abs, ceil, floor, max, min, round, sqrt";

pub(super) fn evaluate(text: &str, names: &BTreeMap<String, Figure>) -> Result<Figure, Fault> {
    if text.chars().count() > CHARS_MAX {
        return Err(Fault::wrong(format!("`expression` must have at most {CHARS_MAX} characters")));
    }
    let mut formula = Formula { text, at: 0, depth: 0, names };
    let figure = formula.sum()?;
    match formula.peek() {
        None => Ok(figure),
        Some(found) => Err(formula.wrong(&format!("found `{found}`, wanted an operator"))),
    }
}

/// Reads from left to right and calculates on the way.
struct Formula<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
    names: &'t BTreeMap<String, Figure>,
}

impl Formula<'_> {
    fn sum(&mut self) -> Result<Figure, Fault> {
        let mut left = self.product()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.at += 1;
            let right = self.product()?;
            left = match (operator, left, right) {
                ('+', Whole(a), Whole(b)) => whole(a.checked_add(b))?,
                (_, Whole(a), Whole(b)) => whole(a.checked_sub(b))?,
                ('+', a, b) => finite(a.real() + b.real())?,
                (_, a, b) => finite(a.real() - b.real())?,
            };
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Figure, Fault> {
        let mut left = self.signed()?;
        while let Some(operator @ ('*' | '/' | '%')) = self.peek() {
            self.at += 1;
            let right = self.signed()?;
            if operator != '*' && right.real() == 0.0 {
                return Err(self.wrong("divides by zero"));
            }
            left = match (operator, left, right) {
                ('*', Whole(a), Whole(b)) => whole(a.checked_mul(b))?,
                ('*', a, b) => finite(a.real() * b.real())?,
                ('/', Whole(a), Whole(b)) if a.checked_rem(b) == Some(0) => {
                    whole(a.checked_div(b))?
                }
                ('/', a, b) => finite(a.real() / b.real())?,
                (_, Whole(a), Whole(b)) => whole(a.checked_rem(b))?,
                (_, a, b) => finite(a.real() % b.real())?,
            };
        }
        Ok(left)
    }

    /// A sign binds less than a power: -2^2 is -4.
    fn signed(&mut self) -> Result<Figure, Fault> {
        match self.peek() {
            Some('-') => {
                self.at += 1;
                match self.deeper(Formula::signed)? {
                    Whole(a) => whole(a.checked_neg()),
                    Real(a) => finite(-a),
                }
            }
            Some('+') => {
                self.at += 1;
                self.deeper(Formula::signed)
            }
            _ => self.power(),
        }
    }

    fn power(&mut self) -> Result<Figure, Fault> {
        let base = self.atom()?;
        if self.peek() != Some('^') {
            return Ok(base);
        }
        self.at += 1;
        let exponent = self.deeper(Formula::signed)?;
        match (base, exponent) {
            (Whole(a @ -1..=1), Whole(b @ 0..)) => {
                Ok(Whole(if b == 0 || (a == -1 && b % 2 == 0) { 1 } else { a }))
            }
            (Whole(a), Whole(b @ 0..)) => {
                let exponent = u32::try_from(b).map_err(|_| too_large())?;
                whole(a.checked_pow(exponent))
            }
            (a, b) => finite(a.real().powf(b.real())),
        }
    }

    fn atom(&mut self) -> Result<Figure, Fault> {
        match self.peek() {
            None => Err(self.wrong("ends too early")),
            Some('(') => {
                self.at += 1;
                let inner = self.deeper(Formula::sum)?;
                self.expect(')')?;
                Ok(inner)
            }
            Some('0'..='9' | '.') => self.number(),
            Some('a'..='z' | 'A'..='Z' | '_') => self.name(),
            Some(found) => Err(self.wrong(&format!("found `{found}`, wanted a number or a name"))),
        }
    }

    fn number(&mut self) -> Result<Figure, Fault> {
        let rest = self.rest();
        let mut end = 0;
        let mut before = ' ';
        for (place, c) in rest.char_indices() {
            let sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E');
            if !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || sign) {
                break;
            }
            end = place + 1;
            before = c;
        }
        let text = rest[..end].to_owned();
        let parsed = match text.parse::<i128>() {
            Ok(number) => Some(Whole(number)),
            Err(_) => text.parse::<f64>().ok().filter(|real| real.is_finite()).map(Real),
        };
        let figure = parsed.ok_or_else(|| self.wrong(&format!("`{text}` is no number")))?;
        self.at += end;
        Ok(figure)
    }

    fn name(&mut self) -> Result<Figure, Fault> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let name = rest[..end.unwrap_or(rest.len())].to_owned();
        let began = self.at;
        self.at += name.len();
        if self.peek() == Some('(') {
            return self.call(&name, began);
        }
        self.names.get(&name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            self.at = began;
            self.wrong(&format!("`{name}` is not known, known are: {}", known.join(", ")))
        })
    }

    fn call(&mut self, name: &str, began: usize) -> Result<Figure, Fault> {
        self.expect('(')?;
        let mut arguments = vec![self.deeper(Formula::sum)?];
        while self.peek() == Some(',') {
            self.at += 1;
            arguments.push(self.deeper(Formula::sum)?);
        }
        self.expect(')')?;
        match (name, &*arguments) {
            ("min", many) => least(many).ok_or_else(not_finite),
            ("max", many) => greatest(many).ok_or_else(not_finite),
            ("abs", [Whole(a)]) => whole(a.checked_abs()),
            ("abs", [Real(a)]) => finite(a.abs()),
            ("sqrt", [a]) => finite(a.real().sqrt()),
            ("floor" | "ceil" | "round", [Whole(a)]) => Ok(Whole(*a)),
            ("floor", [Real(a)]) => rounded(a.floor()),
            ("ceil", [Real(a)]) => rounded(a.ceil()),
            ("round", [Real(a)]) => rounded(a.round()),
            ("abs" | "sqrt" | "floor" | "ceil" | "round", many) => {
                self.at = began;
                Err(self.wrong(&format!("`{name}` has {} arguments, wanted 1", many.len())))
            }
            _ => {
                self.at = began;
                Err(self.wrong(&format!("there is no function `{name}`, there are: {FUNCTIONS}")))
            }
        }
    }

    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Figure, Fault>,
    ) -> Result<Figure, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(&format!("is nested deeper than {DEPTH_MAX}")));
        }
        let figure = read(self)?;
        self.depth -= 1;
        Ok(figure)
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(found) => Err(self.wrong(&format!("found `{found}`, wanted `{wanted}`"))),
            None => Err(self.wrong(&format!("ends without `{wanted}`"))),
        }
    }

    /// The next character that is not blank; the place moves to it.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        self.rest().chars().next()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong(&self, what: &str) -> Fault {
        let place = self.text[..self.at].chars().count() + 1;
        Fault::wrong(format!("`expression`, character {place}: {what}"))
    }
}

fn whole(number: Option<i128>) -> Result<Figure, Fault> {
    number.map(Whole).ok_or_else(too_large)
}

/// A rounded real is a whole number where whole numbers reach.
#[expect(clippy::cast_possible_truncation, reason = "within the bounds of whole numbers")]
fn rounded(real: f64) -> Result<Figure, Fault> {
    if real.abs() < 9.2e18 { Ok(Whole(real as i128)) } else { finite(real) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_calculated_and_faults_have_a_place() {
        let names: BTreeMap<String, Figure> =
            [("a".to_owned(), Whole(7)), ("b_2".to_owned(), Real(0.5))].into();
        for (text, expected) in [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("7 / 2", "3.5"),
            ("6 / 2", "3"),
            ("-7 % 4", "-3"),
            ("2 ^ 3 ^ 2", "512"),
            ("-2 ^ 2", "-4"),
            ("2 ^ -1", "0.5"),
            ("(-1) ^ 1000000000001", "-1"),
            ("a * b_2", "3.5"),
            ("max(a, 8, 2.5) - min(1, 2)", "7"),
            ("round(2.5) + floor(-0.5) + ceil(0.1) + abs(-3)", "6"),
            ("sqrt(a + 2)", "3.0"),
            ("1e3 + .5", "1000.5"),
            ("9223372036854775807 + 1 - 1", "9223372036854775807"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551615 + 1", "the result does not fit 64 bits"),
            ("10 ^ 100", "the result does not fit 64 bits"),
            ("2.0 ^ 5000", "the result is not a finite number"),
            ("sqrt(-1)", "the result is not a finite number"),
            ("1 / 0", "`expression`, character 6: divides by zero"),
            ("1 % 0.0", "`expression`, character 8: divides by zero"),
            ("", "`expression`, character 1: ends too early"),
            ("1 +", "`expression`, character 4: ends too early"),
            ("1 2", "`expression`, character 3: found `2`, wanted an operator"),
            ("(1", "`expression`, character 3: ends without `)`"),
            ("1.2.3", "`expression`, character 1: `1.2.3` is no number"),
            ("é + 1", "`expression`, character 1: found `é`, wanted a number or a name"),
            ("x + 1", "`expression`, character 1: `x` is not known, known are: a, b_2"),
            (
                "exec(1)",
                "`expression`, character 1: there is no function `exec`, there are: \
                abs, ceil, floor, max, min, round, sqrt",
            ),
            ("abs(1, 2)", "`expression`, character 1: `abs` has 2 arguments, wanted 1"),
        ] {
            let got = evaluate(text, &names).and_then(Figure::value);
            let got = got.map_or_else(|fault| fault.message, |value| value.to_string());
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let none = BTreeMap::new();
        for text in ["(".repeat(2_000), "-".repeat(2_000), "1^".repeat(2_000)] {
            let fault = evaluate(&text, &none).unwrap_err();
            assert!(fault.message.contains("nested deeper"), "{}", fault.message);
        }
        let long = "1+".repeat(2_047) + "1";
        assert_eq!(evaluate(&long, &none).unwrap(), Whole(2_048));
        assert!(evaluate(&format!("{long}+1"), &none).is_err());
    }
}
