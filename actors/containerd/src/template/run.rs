//! Executes the tree.

use serde_json::Value;

use super::Fault;
use super::functions::{call, is_true, print};
use super::lex::Token;
use super::parse::{Command, Node, Operand, OperandKind, Pipeline};

/// A range over a list within a range over a list can write much.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

struct Runner<'a> {
    base: &'a str,
    variables: Vec<(String, Value)>,
    out: String,
}

/// Executes all nodes.
pub(super) fn run(nodes: &[Node], base: &str, data: &Value) -> Result<String, Fault> {
    let mut runner = Runner { base, variables: vec![(String::new(), data.clone())], out: String::new() };
    runner.nodes(nodes, data)?;
    Ok(runner.out)
}

impl Runner<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), Fault> {
        nodes.iter().try_for_each(|node| self.node(node, dot))
    }

    /// Executes nodes, and forgets the variables that they made.
    fn scope(&mut self, nodes: &[Node], dot: &Value, variables: usize) -> Result<(), Fault> {
        self.nodes(nodes, dot)?;
        self.variables.truncate(variables);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), Fault> {
        let variables = self.variables.len();
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Base => self.out.push_str(self.base),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.set.is_none() {
                    self.out.push_str(&print(&value));
                }
                if self.out.len() > OUTPUT_BYTES_MAX {
                    return Err(Fault::new(pipeline.at, "the template writes too much"));
                }
            }
            Node::If { when, then, otherwise } => {
                let holds = is_true(&self.pipeline(when, dot)?);
                self.scope(if holds { then } else { otherwise }, dot, variables)?;
            }
            Node::With { when, then, otherwise } => {
                let value = self.pipeline(when, dot)?;
                if is_true(&value) {
                    self.scope(then, &value, variables)?;
                } else {
                    self.scope(otherwise, dot, variables)?;
                }
            }
            Node::Range { over, body, otherwise } => self.range(over, body, otherwise, dot)?,
        }
        Ok(())
    }

    fn range(&mut self, over: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<(), Fault> {
        let variables = self.variables.len();
        let items: Vec<(Value, Value)> = match self.commands(&over.commands, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(index, item)| (index.into(), item)).collect(),
            Value::Object(map) => {
                let mut items: Vec<(String, Value)> = map.into_iter().collect();
                items.sort_by(|a, b| a.0.cmp(&b.0));
                items.into_iter().map(|(key, item)| (Value::String(key), item)).collect()
            }
            value if !is_true(&value) => Vec::new(),
            value => return Err(Fault::new(over.at, format!("range goes over lists and maps, not over {value}"))),
        };
        if items.is_empty() {
            return self.scope(otherwise, dot, variables);
        }
        for (key, item) in items {
            if let Some(set) = &over.set {
                let values = if set.names.len() == 2 { vec![key, item.clone()] } else { vec![item.clone()] };
                for (name, value) in set.names.iter().zip(values) {
                    self.set(name, value, set.is_new, over.at)?;
                }
            }
            self.scope(body, &item, variables)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value, is_new: bool, at: usize) -> Result<(), Fault> {
        if is_new {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let found = self.variables.iter_mut().rev().find(|(other, _)| other == name);
        let (_, place) = found.ok_or_else(|| Fault::new(at, format!("there is no variable ${name}")))?;
        *place = value;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Fault> {
        let value = self.commands(&pipeline.commands, dot)?;
        if let Some(set) = &pipeline.set {
            let [name] = set.names.as_slice() else {
                return Err(Fault::new(pipeline.at, "only range sets two variables"));
            };
            self.set(name, value.clone(), set.is_new, pipeline.at)?;
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &[Command], dot: &Value) -> Result<Value, Fault> {
        let mut last = None;
        for command in commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &Command, last: Option<Value>, dot: &Value) -> Result<Value, Fault> {
        let Some((head, arguments)) = command.operands.split_first() else { return Ok(Value::Null) };
        if let OperandKind::Word(Token::Name(name)) = &head.kind
            && !matches!(name.as_str(), "true" | "false" | "nil")
        {
            let mut values = Vec::new();
            for argument in arguments {
                values.push(self.operand(argument, dot)?);
            }
            values.extend(last);
            return call(name, &values).map_err(|reason| Fault::new(head.at, reason));
        }
        if let Some(argument) = arguments.first() {
            return Err(Fault::new(argument.at, "only functions take arguments"));
        }
        if last.is_some() {
            return Err(Fault::new(head.at, "only functions can follow a \"|\""));
        }
        self.operand(head, dot)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Fault> {
        let at = operand.at;
        let token = match &operand.kind {
            OperandKind::Pipeline(pipeline) => return self.pipeline(pipeline, dot),
            OperandKind::Word(token) => token,
        };
        match token {
            Token::Text(text) => Ok(Value::String(text.clone())),
            Token::Number(number) => Ok((*number).into()),
            Token::Field(fields) => walk(dot, fields, at),
            Token::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(other, _)| other == name);
                let (_, value) = found.ok_or_else(|| Fault::new(at, format!("there is no variable ${name}")))?;
                walk(value, fields, at)
            }
            Token::Name(name) => match name.as_str() {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                "nil" => Ok(Value::Null),
                _ => call(name, &[]).map_err(|reason| Fault::new(at, reason)),
            },
            _ => Err(Fault::new(at, "this sign has no meaning here")),
        }
    }
}

fn walk(value: &Value, fields: &[String], at: usize) -> Result<Value, Fault> {
    let mut found = value;
    for field in fields {
        let absent = || Fault::new(at, format!("there is no field {field:?}"));
        found = found.as_object().and_then(|map| map.get(field)).ok_or_else(absent)?;
    }
    Ok(found.clone())
}
