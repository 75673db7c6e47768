//! Bytes as text and back: the standard alphabet of RFC 4648, padded.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for piece in bytes.chunks(3) {
        let byte = |index: usize| u32::from(piece.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let shown = place <= piece.len();
            let digit = (group >> (18 - 6 * place)) & 63;
            text.push(if shown { char::from(ALPHABET[digit as usize]) } else { '=' });
        }
    }
    text
}

/// The bytes of `text`; what is wrong with it otherwise.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    if !text.len().is_multiple_of(4) {
        return Err(format!("has {} characters, wanted a multiple of 4", text.len()));
    }
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for (chunk, piece) in digits.as_bytes().chunks(4).enumerate() {
        let mut group = 0_u32;
        for (place, byte) in piece.iter().enumerate() {
            let value = value_of(*byte).ok_or_else(|| {
                let at = chunk * 4 + place;
                format!("has a character at {at} that is none of A-Z, a-z, 0-9, `+` and `/`")
            })?;
            group |= value << (18 - 6 * place);
        }
        let [_, first, second, third] = group.to_be_bytes();
        let whole = [first, second, third];
        let (kept, rest) = whole.split_at(piece.len().saturating_sub(1));
        // Bits that no byte takes would be lost.
        if rest.iter().any(|byte| *byte != 0) {
            return Err("ends in the middle of a byte".to_owned());
        }
        bytes.extend_from_slice(kept);
    }
    Ok(bytes)
}

fn value_of(digit: u8) -> Option<u32> {
    Some(match digit {
        b'A'..=b'Z' => u32::from(digit - b'A'),
        b'a'..=b'z' => u32::from(digit - b'a') + 26,
        b'0'..=b'9' => u32::from(digit - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_bad_text_is_refused() {
        // The examples of RFC 4648.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        for text in ["Zg", "Zg=a", "Z===", "Zh==", "Zm9\n", "=Zg=", "Zm=v", "ééé"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
