/* Answers as models write them, for the tests of what is drawn while they grow. */

export const ANSWERS: Record<string, string> = {
  "lists under a text": "Three things:\n- one\n- two\n  - inner\n  - more inner\n- three\n\nDone - really.\n",
  "loose and nested lists":
    "1. First\n\n   More of the first.\n\n2. Second\n   - a\n   - b\n\n     with a paragraph\n3. Third\n\n* star\n* [ ] to do\n* [x] done\n\n12 is a number, 12. too\n",
  "text and rules": "Before\n---\nAfter\n\n***\n\n- - -\n\nEnd\n===\nlast\n",
  headings: "# One\n\n## Two ##\n\n### C# and F# #\n\ntext # no\n#hashtag\n",
  "listings": "Run:\n\n```python\ndef f(x):\n    return `x`  # ``` not the end\n\nprint(f(1))\n```\n\nand\n\n~~~\nraw ``` inside\n~~~\nThen `inline` and ``two ` ticks``.\n",
  "listings in lists and quotes":
    "1. Do this:\n\n   ```sh\n   npm ci\n\n   npm test\n   ```\n\n2. Then:\n   ```js\n   const a = [1];\n   ```\n\n> Quote\n>\n> ```\n> code > here\n>\n> more\n> ```\n>\n> after\n\n- x\n  - y\n    ```yaml\n    a: 1\n    - b\n    ```\n",
  "a listing of Markdown": "````md\n# Title\n```js\nlet a\n```\n- [x] b\n````\nend\n",
  tables:
    "Prices:\n\n| Name | Price |\n|:-----|------:|\n| `a|b` | $5 |\n| **bold** | 7<br>8 |\n| [x](https://a.test/x) | - |\n\nAfter | that.\n\ntext\n",
  "tables after text": "Here:\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |\n\n* list\n\n  | c | d |\n  |---|---|\n  | 5 | 6 |\n",
  links:
    "See [the [docs] here](https://a.test/x_(y)), [text](https://b.test \"a title\"), ![a picture](https://c.test/i.png) and <https://d.test/>.\n\n[not a link] (x), [also] not, a[0] = b[1]; https://e.test/a_b_c?x=1&y=2 ends. Mail me@f.test now.\n\n- [inner](https://g.test) done\n",
  emphasis:
    "This is **bold**, *italic*, ***both***, ~~gone~~, __strong__ and _soft_; snake_case_name, 2*3*4, 2 * 3, a ** b.\n\n**Note:** text. **A *nested* one** and *a **nested** other*. 注意：**重要**です。\n\n*unclosed and that is that\n\nnext **too\n\nend_\n",
  "long emphasis": `A **${"very ".repeat(60)}long** one.\n\nAnd \`code\` after.\n`,
  maths:
    "Inline $x^2 + y_1$ and \\(a_b\\), display:\n\n$$\n\\int_0^1 x\\,dx\n$$\n\n\\[\nz = \\frac{1}{2}\n\\]\n\nand $$a$$ here.\n",
  money: "It costs $5 to $10, $AAPL/$MSFT rose, US$ 7 and 8$. $HOME:$PATH is no formula. The end is $3.\n",
  references:
    "No references here, but [brackets] and \\[escaped\\], \\*stars\\* and a backslash \\\\ too. A&B &amp; C &copy; D; 5 < 6 > 4.\n",
  html: "A <b>bold</b> word.\n\n<details>\n<summary>More</summary>\ntext\n</details>\n\nline<br>break and x<y>z.\n",
  quotes: "> One\n> two\n\n> three\n>> four\n\ntext > more\n",
  footnotes: "A claim[^1] and another[^note].\n\nText between.\n\n[^1]: The *source* of it,\n  in two lines.\n[^note]: https://a.test/b here\n\nEnd.\n",
  japanese: "次の通りです：\n\n1. **最初**の項目\n2. `コード`と「引用」\n\n| 列 | 値 |\n|---|---|\n| あ | 1 |\n\n以上。\n",
  arabic: "مرحبا **بالعالم**:\n\n- أولا\n- ثانيا `code`\n\n> اقتباس\n",
};
