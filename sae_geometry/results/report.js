// Sorts a table by the clicked column: numbers as numbers, empty cells last.
document.querySelectorAll("th button").forEach(function(button){button.onclick=function(){
var th=button.parentNode,body=th.closest("table").tBodies[0],at=th.cellIndex,down=th.ariaSort!=="descending";
th.parentNode.querySelectorAll("th").forEach(function(o){o.ariaSort="none"});
th.ariaSort=down?"descending":"ascending";
Array.from(body.rows).map(function(r){var t=r.cells[at].textContent,x=parseFloat(t);return[r,t===""?null:isNaN(x)?t:x]})
.sort(function(p,q){if(p[1]===q[1])return 0;if(p[1]===null)return 1;if(q[1]===null)return-1;
return(p[1]<q[1]?-1:1)*(down?-1:1)}).forEach(function(p){body.appendChild(p[0])})}});
