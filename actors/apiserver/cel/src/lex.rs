//! Tokens.

use crate::error::{Fault, fault};

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    Int(i64),
    /// The greatest distance below zero, which only fits with its sign: `9223372036854775808`.
    IntMin,
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Mark(&'static str),
    End,
}

/// Longer ones first.
const MARKS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// Letters behind a backslash that stand for one byte.
const ESCAPES: &[(char, u8)] = &[
    ('a', 7),
    ('b', 8),
    ('f', 12),
    ('n', b'\n'),
    ('r', b'\r'),
    ('t', b'\t'),
    ('v', 11),
    ('\\', b'\\'),
    ('\'', b'\''),
    ('"', b'"'),
    ('`', b'`'),
    ('?', b'?'),
];

/// Splits an expression. Each token comes with its offset in characters.
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let letters: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { letters: &letters, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        tokens.push((at, token));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'l> {
    letters: &'l [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.letters.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(index, c)| self.peek(index) == c)
    }

    /// Blanks and comments.
    fn skip(&mut self) {
        loop {
            match self.peek(0) {
                ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.letters.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token, Fault> {
        if self.at >= self.letters.len() {
            return Ok(Token::End);
        }
        let c = self.peek(0);
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if let Some(token) = self.quoted()? {
            return Ok(token);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            return Ok(Token::Ident(self.letters[start..self.at].iter().collect()));
        }
        if let Some(mark) = MARKS.iter().find(|mark| self.starts_with(mark)) {
            self.at += mark.len();
            return Ok(Token::Mark(mark));
        }
        Err(fault(self.at, format!("Syntax error: token recognition error at: '{c}'")))
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            let digits = self.digits(char::is_ascii_hexdigit);
            return self.whole(start, &digits, 16);
        }
        let mut text = self.digits(char::is_ascii_digit);
        let mut whole = true;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            whole = false;
            self.at += 1;
            text = format!("{text}.{}", self.digits(char::is_ascii_digit));
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            whole = false;
            text.push('e');
            if sign == 1 {
                text.push(self.peek(1));
            }
            self.at += 1 + sign;
            text.push_str(&self.digits(char::is_ascii_digit));
        }
        if whole {
            return self.whole(start, &text, 10);
        }
        let text = if text.starts_with('.') { format!("0{text}") } else { text };
        text.parse().map(Token::Double).map_err(|_| fault(start, "invalid double literal".to_owned()))
    }

    fn digits(&mut self, fits: fn(&char) -> bool) -> String {
        let start = self.at;
        while fits(&self.peek(0)) {
            self.at += 1;
        }
        self.letters[start..self.at].iter().collect()
    }

    fn whole(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Fault> {
        let number = u64::from_str_radix(digits, radix);
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return number.map(Token::Uint).map_err(|_| fault(start, "invalid uint literal".to_owned()));
        }
        let number = number.map_err(|_| fault(start, "invalid int literal".to_owned()))?;
        match i64::try_from(number) {
            Ok(number) => Ok(Token::Int(number)),
            Err(_) if number == i64::MIN.unsigned_abs() => Ok(Token::IntMin),
            Err(_) => Err(fault(start, "invalid int literal".to_owned())),
        }
    }

    /// Text or bytes in any of their quotes, if there are some here.
    fn quoted(&mut self) -> Result<Option<Token>, Fault> {
        let (mut raw, mut bytes, mut ahead) = (false, false, 0);
        loop {
            match self.peek(ahead) {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                '"' | '\'' => break,
                _ => return Ok(None),
            }
            ahead += 1;
        }
        let start = self.at;
        self.at += ahead;
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let mut value = Vec::new();
        loop {
            let c = self.peek(0);
            let ends = (0..width).all(|ahead| self.peek(ahead) == quote);
            if self.at >= self.letters.len() || (!triple && matches!(c, '\n' | '\r')) {
                return Err(fault(start, format!("Syntax error: token recognition error at: '{quote}'")));
            }
            if ends {
                self.at += width;
                break;
            }
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(bytes, &mut value)?;
            } else {
                value.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if bytes {
            return Ok(Some(Token::Bytes(value)));
        }
        let text = String::from_utf8(value).map_err(|_| fault(start, "invalid string literal".to_owned()))?;
        Ok(Some(Token::Text(text)))
    }

    fn escape(&mut self, bytes: bool, value: &mut Vec<u8>) -> Result<(), Fault> {
        let (at, c) = (self.at - 1, self.peek(0));
        let wrong = || fault(at, "Syntax error: token recognition error at: '\\'".to_owned());
        self.at += 1;
        if let Some((_, byte)) = ESCAPES.iter().find(|(letter, _)| *letter == c) {
            value.push(*byte);
            return Ok(());
        }
        let (digits, radix) = match c {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => {
                self.at -= 1;
                (3, 8)
            }
            _ => return Err(wrong()),
        };
        let text: String = (0..digits).map(|ahead| self.peek(ahead)).collect();
        self.at += digits;
        let code = u32::from_str_radix(&text, radix).map_err(|_| wrong())?;
        if bytes {
            value.push(u8::try_from(code).map_err(|_| wrong())?);
        } else {
            let c = char::from_u32(code).ok_or_else(wrong)?;
            value.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}
