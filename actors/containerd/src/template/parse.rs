//! Actions become a tree.

use super::Fault;
use super::lex::{Action, Part, Token, Word};

/// Nesting deeper than anybody writes.
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If {
        when: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        when: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// The configuration that we would have made.
    Base,
}

/// Commands, each of which gets the result of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub at: usize,
    pub set: Option<Set>,
    pub commands: Vec<Command>,
}

/// Variables that get the result.
#[derive(Debug)]
pub(super) struct Set {
    pub names: Vec<String>,
    pub is_new: bool,
}

#[derive(Debug)]
pub(super) struct Command {
    pub at: usize,
    pub operands: Vec<Operand>,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub at: usize,
    pub kind: OperandKind,
}

#[derive(Debug)]
pub(super) enum OperandKind {
    Word(Token),
    Pipeline(Box<Pipeline>),
}

struct Parser<'a> {
    parts: &'a [Part],
    next: usize,
    depth: usize,
}

/// What ended a list of nodes.
enum End<'a> {
    Template,
    Closed(&'a Action),
    Else(&'a Action),
}

/// Makes the tree.
pub(super) fn parse(parts: &[Part]) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser { parts, next: 0, depth: 0 };
    let (nodes, end) = parser.list()?;
    let stray = |action: &Action, word| {
        Err(Fault::new(first(action), format!("{{{{ {word} }}}} without anything that it could end")))
    };
    match end {
        End::Template => Ok(nodes),
        End::Closed(action) => stray(action, "end"),
        End::Else(action) => stray(action, "else"),
    }
}

fn first(action: &Action) -> usize {
    action.words.first().map_or(action.at, |word| word.at)
}

impl<'a> Parser<'a> {
    fn list(&mut self) -> Result<(Vec<Node>, End<'a>), Fault> {
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.get(self.next) {
            self.next += 1;
            let action = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Part::Action(action) => action,
            };
            let keyword = action.words.first().map(|word| &word.token);
            match keyword {
                Some(Token::Name(name)) if name == "end" => return Ok((nodes, End::Closed(action))),
                Some(Token::Name(name)) if name == "else" => return Ok((nodes, End::Else(action))),
                _ => nodes.push(self.node(action, &action.words)?),
            }
        }
        Ok((nodes, End::Template))
    }

    fn node(&mut self, action: &'a Action, words: &'a [Word]) -> Result<Node, Fault> {
        let at = words.first().map_or(action.at, |word| word.at);
        let name = match words.first().map(|word| &word.token) {
            Some(Token::Name(name)) => name.as_str(),
            _ => "",
        };
        match name {
            "if" | "with" | "range" => {
                let pipeline = pipeline(&words[1..], at)?;
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(Fault::new(at, "the template is nested too deeply"));
                }
                let (then, otherwise) = self.branches(at, name)?;
                self.depth -= 1;
                Ok(match name {
                    "if" => Node::If { when: pipeline, then, otherwise },
                    "with" => Node::With { when: pipeline, then, otherwise },
                    _ => Node::Range { over: pipeline, body: then, otherwise },
                })
            }
            "template" => match words.get(1) {
                Some(Word { token: Token::Text(name), .. }) if name == "base" => Ok(Node::Base),
                Some(word) => {
                    Err(Fault::new(word.at, format!("there is no template but \"base\", so not {:?}", word.token)))
                }
                None => Err(Fault::new(at, "template needs a name")),
            },
            "define" | "block" | "break" | "continue" => {
                Err(Fault::new(at, format!("{name} is not supported in templates of the configuration")))
            }
            _ => Ok(Node::Print(pipeline(words, at)?)),
        }
    }

    /// What follows a condition: the nodes if it holds, and those if it doesn't.
    fn branches(&mut self, at: usize, name: &str) -> Result<(Vec<Node>, Vec<Node>), Fault> {
        let open = || Fault::new(at, format!("there is no {{{{ end }}}} for this {name}"));
        let (then, end) = self.list()?;
        let action = match end {
            End::Closed(_) => return Ok((then, Vec::new())),
            End::Else(action) => action,
            End::Template => return Err(open()),
        };
        if let [_, chained @ ..] = action.words.as_slice()
            && !chained.is_empty()
        {
            // The end of the chained condition is the end of this one too.
            return Ok((then, vec![self.node(action, chained)?]));
        }
        match self.list()? {
            (otherwise, End::Closed(_)) => Ok((then, otherwise)),
            (_, End::Else(action)) => Err(Fault::new(first(action), "there is an {{ else }} already")),
            (_, End::Template) => Err(open()),
        }
    }
}

/// Reads `$x, $y := command | command`.
fn pipeline(words: &[Word], at: usize) -> Result<Pipeline, Fault> {
    let sign = words.iter().position(|word| matches!(word.token, Token::Declare | Token::Assign));
    let (set, words) = match sign {
        None => (None, words),
        Some(sign) => {
            let mut names = Vec::new();
            for (position, word) in words[..sign].iter().enumerate() {
                match &word.token {
                    Token::Variable(name, fields) if position % 2 == 0 && fields.is_empty() => names.push(name.clone()),
                    Token::Comma if position % 2 == 1 => {}
                    _ => return Err(Fault::new(word.at, "only variables can be set")),
                }
            }
            let is_new = words[sign].token == Token::Declare;
            if names.is_empty() || names.len() > 2 {
                return Err(Fault::new(words[sign].at, "one variable is set, or two by range"));
            }
            (Some(Set { names, is_new }), &words[sign + 1..])
        }
    };
    let mut rest = words;
    let commands = commands(&mut rest, at, 0)?;
    match rest.first() {
        None => Ok(Pipeline { at, set, commands }),
        Some(word) => Err(Fault::new(word.at, "\")\" without \"(\"")),
    }
}

/// Reads commands up to the end or a closing bracket, which stays.
fn commands(rest: &mut &[Word], at: usize, depth: usize) -> Result<Vec<Command>, Fault> {
    if depth > DEPTH_MAX {
        return Err(Fault::new(at, "the action is nested too deeply"));
    }
    let mut all = Vec::new();
    let mut current = Command { at, operands: Vec::new() };
    while let Some((word, after)) = rest.split_first() {
        let kind = match &word.token {
            Token::Close => break,
            Token::Pipe => {
                *rest = after;
                push(&mut all, current)?;
                current = Command { at: word.at, operands: Vec::new() };
                continue;
            }
            Token::Open => {
                *rest = after;
                let commands = commands(rest, word.at, depth + 1)?;
                if rest.first().is_none_or(|word| word.token != Token::Close) {
                    return Err(Fault::new(word.at, "\"(\" is not closed"));
                }
                OperandKind::Pipeline(Box::new(Pipeline { at: word.at, set: None, commands }))
            }
            Token::Declare | Token::Assign | Token::Comma => {
                return Err(Fault::new(word.at, "this sign has no meaning here"));
            }
            token => OperandKind::Word(token.clone()),
        };
        *rest = &rest[1..];
        current.operands.push(Operand { at: word.at, kind });
    }
    push(&mut all, current)?;
    Ok(all)
}

fn push(all: &mut Vec<Command>, command: Command) -> Result<(), Fault> {
    if command.operands.is_empty() {
        return Err(Fault::new(command.at, "the action is empty"));
    }
    all.push(command);
    Ok(())
}
